package apple

import (
	"context"
	"fmt"
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

// pendingTrouble is how many faults may wait for their occasion. Where pushes
// stand still, they would pile up, and strike all at once what comes next.
const pendingTrouble = 8

// Make injects a fault.
func (r *Role) Make(t Trouble, _ *struct{}) error {
	if r.sim.Scripted() > pendingTrouble {
		r.sim.ClearScripts()
	}
	if t.N == 0 {
		r.sim.Trigger(t.Fault)
		return nil
	}
	r.sim.Inject(t.Fault, t.N)
	return nil
}

// Outage refuses every connect and resets what is open, or ends that.
func (r *Role) Outage(on bool, _ *struct{}) error {
	faults := r.sim.Faults()
	delete(faults.Rates, apnstest.FaultRefuseConnect)
	if on {
		faults.Rates = map[apnstest.Fault]float64{apnstest.FaultRefuseConnect: 1}
	}
	if err := r.sim.SetFaults(faults); err != nil {
		return fmt.Errorf("set faults: %w", err)
	}
	if on {
		r.sim.Trigger(apnstest.FaultReset)
	}
	return nil
}

// Calm ends all trouble that has not struck yet.
func (r *Role) Calm(_ struct{}, _ *struct{}) error {
	r.sim.ClearScripts()
	return r.sim.SetFaults(apnstest.Faults{})
}

// Unregister makes Apple say that the device is gone.
func (r *Role) Unregister(device int, _ *struct{}) error {
	r.sim.Unregister(names.Device(device), time.Now())
	return nil
}

// Register makes the device known again.
func (r *Role) Register(device int, _ *struct{}) error {
	r.sim.RegisterDevice(names.Device(device), names.Topic, apnstest.Production, apnstest.Meta{})
	return nil
}

// Make injects a fault.
func (a *Apple) Make(ctx context.Context, t Trouble) error {
	return a.Ask(ctx, "Make", t, &struct{}{})
}

// Outage refuses every connect and resets what is open, or ends that.
func (a *Apple) Outage(ctx context.Context, on bool) error {
	return a.Ask(ctx, "Outage", on, &struct{}{})
}

// Calm ends all trouble that has not struck yet.
func (a *Apple) Calm(ctx context.Context) error { return a.Ask(ctx, "Calm", struct{}{}, &struct{}{}) }

// Unregister makes Apple say that the device is gone.
func (a *Apple) Unregister(ctx context.Context, device int) error {
	return a.Ask(ctx, "Unregister", device, &struct{}{})
}

// Register makes the device known again.
func (a *Apple) Register(ctx context.Context, device int) error {
	return a.Ask(ctx, "Register", device, &struct{}{})
}
