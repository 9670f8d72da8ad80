package apple

import (
	"context"
	"net/http"
	"slices"
	"time"

	"badgerelay/apns/apnstest"
	"badgerelay/cmd/internal/rig/names"
)

// Trouble is a fault to inject: into the next requests or connects, N times;
// one of connections strikes all open ones at once if N is 0.
type Trouble struct {
	Fault apnstest.Fault
	N     int
}

type fault struct {
	Fault string `json:"fault"`
}

// pendingTrouble is how many faults may wait for their occasion. Where pushes
// stand still, they would pile up, and strike all at once what comes next.
const pendingTrouble = 8

// Make injects a fault.
func (a *Apple) Make(ctx context.Context, t Trouble) error {
	if t.N == 0 {
		return a.console.Ask(ctx, http.MethodPost, "strike", fault{t.Fault.String()}, nil)
	}
	var pending struct{ Scripted int }
	if err := a.console.Ask(ctx, http.MethodGet, "stats", nil, &pending); err != nil {
		return err
	}
	if pending.Scripted > pendingTrouble {
		if err := a.forget(ctx); err != nil {
			return err
		}
	}
	return a.console.Ask(ctx, http.MethodPost, "script", struct {
		Answers []fault `json:"answers"`
	}{slices.Repeat([]fault{{t.Fault.String()}}, t.N)}, nil)
}

// forget ends all trouble that has not struck yet.
func (a *Apple) forget(ctx context.Context) error {
	return a.console.Ask(ctx, http.MethodDelete, "script", nil, nil)
}

// Outage refuses every connect and resets what is open, or ends that.
func (a *Apple) Outage(ctx context.Context, on bool) error {
	if !on {
		return a.setFaults(ctx, a.config.Jitter, nil)
	}
	if err := a.setFaults(ctx, a.config.Jitter, map[string]float64{apnstest.FaultRefuseConnect.String(): 1}); err != nil {
		return err
	}
	return a.Make(ctx, Trouble{Fault: apnstest.FaultReset})
}

// Calm ends all trouble, also what has not struck yet; answers come at once.
func (a *Apple) Calm(ctx context.Context) error {
	if err := a.forget(ctx); err != nil {
		return err
	}
	return a.setFaults(ctx, 0, nil)
}

func (a *Apple) setFaults(ctx context.Context, jitter time.Duration, rates map[string]float64) error {
	type latency struct {
		Jitter string `json:"jitter"`
	}
	return a.console.Ask(ctx, http.MethodPut, "faults", struct {
		Latency latency            `json:"latency"`
		Rates   map[string]float64 `json:"rates"`
	}{latency{jitter.String()}, rates}, nil)
}

// Unregister makes Apple say that the device is gone.
func (a *Apple) Unregister(ctx context.Context, device int) error {
	return a.console.Ask(ctx, http.MethodDelete, "devices/"+names.Device(device).Hex(), nil, nil)
}

// Register makes the device known again.
func (a *Apple) Register(ctx context.Context, device int) error {
	return a.console.Ask(ctx, http.MethodPost, "devices", struct {
		Token string `json:"token"`
		Topic string `json:"topic"`
	}{names.Device(device).Hex(), names.Topic}, nil)
}
