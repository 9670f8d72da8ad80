package check

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"time"

	"badgerelay/relay/agent"
	"badgerelay/relay/agent/daemon"
)

const (
	// pushTimeout bounds the push to the device that can't be. Ours.
	pushTimeout = 15 * time.Second
	// cleanTimeout bounds that it is taken off again.
	cleanTimeout = 5 * time.Second
)

// Pushed is what became of a push to a device that can't be.
type Pushed struct {
	agent.Result
	// AppMisconfigured says that APNs refuses nearly all devices of the app.
	AppMisconfigured bool
}

// APNs sends a count to a device that can't be, through the relay, and leaves nothing
// behind. agent.OutcomeUndeliverable with the reason BadDeviceToken proves everything
// between the relay and Apple but the environment, which only the app's devices tell;
// agent.OutcomePending is that APNs has not answered in time. An error is the relay's.
func APNs(ctx context.Context, c *agent.Client, app string) (Pushed, error) {
	registration := agent.Registration{Mailbox: daemon.ProbeMailbox, App: app, Device: newNobody()}
	subscribed, err := c.Subscribe(ctx, registration)
	if err != nil {
		return Pushed{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, pushTimeout)
	defer cancel()
	results, err := c.Publish(ctx, []agent.Event{{Mailbox: daemon.ProbeMailbox, Unread: 1}})
	late := err != nil && ctx.Err() != nil
	clean, done := context.WithTimeout(context.WithoutCancel(ctx), cleanTimeout)
	defer done()
	if err == nil && results[0].Outcome == agent.OutcomeUndeliverable {
		// A device that comes back is no removed one, and one that leaves is forgotten.
		if _, err := c.Subscribe(clean, registration); err != nil {
			return Pushed{results[0], subscribed.AppMisconfigured}, nil // the next one's turn
		}
	}
	_, _ = c.Unsubscribe(clean, registration) // a lasting one ends with the next
	switch {
	case late:
		return Pushed{Result: agent.Result{Outcome: agent.OutcomePending}}, nil
	case err != nil:
		return Pushed{}, err
	}
	return Pushed{results[0], subscribed.AppMisconfigured}, nil
}

// newNobody draws a device that can't be (apns.ImpossibleDevice), another one each
// time: Apple holds a second push to a device that it refused against the relay. The
// relay takes it off its mailbox again as soon as Apple has refused it.
func newNobody() agent.DeviceToken {
	raw := make([]byte, 32)
	_, _ = rand.Read(raw[copy(raw, "badgerelay's probe token"):]) // never fails, Go 1.24
	return agent.DeviceToken(hex.EncodeToString(raw))
}
