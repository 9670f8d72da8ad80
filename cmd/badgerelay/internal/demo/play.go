package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"badgerelay/relay/agent"
)

const (
	// agentBackoff suits a relay that is back within a second.
	agentBackoff = 100 * time.Millisecond
	// pace is the mean time between two changes of a demonstration: about what
	// fifty busy people cause.
	pace = 700 * time.Millisecond
	// checkPace is the time between two bursts of a check.
	checkPace  = 5 * time.Millisecond
	checkBurst = 5
	// checkTimeout is how long a check waits for the last counts: longer than any
	// fault lasts.
	checkTimeout = 30 * time.Second
)

// play changes a mailbox now and then until ctx is done.
func (d *demo) play(ctx context.Context) error {
	for _, name := range d.boxes.names { // as they would be on a morning
		unread := uint32(rand.IntN(12))
		if err := d.agent.Set(name, unread, 1, d.boxes.set(name, unread)); err != nil {
			return err
		}
	}
	timer := time.NewTimer(pace)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
		if err := d.change(); err != nil {
			return err
		}
		timer.Reset(pace/4 + rand.N(pace*3/2))
	}
}

func (d *demo) change() error {
	mailbox, unread, version := d.boxes.change()
	return d.agent.Set(mailbox, unread, 1, version)
}

// Result is what a check found; its JSON is the last line printed.
type Result struct {
	Mailboxes    int    `json:"mailboxes"`
	Devices      int    `json:"devices"`
	Shared       int    `json:"sharedDevices"` // of them: on two mailboxes, whose sum they show
	Events       uint64 `json:"events"`        // counts that changed
	Pushes       uint64 `json:"pushes"`        // that the simulated Apple saw
	Superseded   uint64 `json:"superseded"`    // counts that a newer one replaced, at the agent or the relay
	Resent       uint64 `json:"resent"`        // pushes the relay sent again after a fault
	ClientFaults int    `json:"clientFaults"`  // what Apple would hold against the relay; must be 0
	WrongBadges  int    `json:"wrongBadges"`   // devices that don't show their mailbox's count, or the sum of theirs; must be 0
}

// check changes counts for the time, restarts the relay in the middle, waits
// until everything has settled, and judges.
func (d *demo) check(ctx context.Context) error {
	fmt.Fprintf(d.options.Out, "Changing the counts of %d mailboxes for %s, with a restart of the relay half-way, and comparing %d devices at the end, %d of which show the sum of two.\n",
		len(d.boxes.names), d.options.Check, len(d.boxes.devices), d.boxes.shared())
	restarted := make(chan error, 1)
	restart := time.AfterFunc(d.options.Check/2, func() { restarted <- d.relays.restart(d) })
	defer restart.Stop()
	if err := d.storm(ctx); err != nil {
		return err
	}
	if err := <-restarted; err != nil {
		return fmt.Errorf("restart the relay: %w", err)
	}
	if ctx.Err() != nil {
		return errors.New("interrupted before the check was over")
	}
	wait, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	if err := d.agent.WaitSettled(wait); err != nil {
		fmt.Fprintf(d.options.Out, "Not everything has settled: %v; %+v\n", err, d.agent.Status())
	}
	r := d.judge(wait)
	line, err := json.Marshal(r)
	if err != nil {
		return err
	}
	fmt.Fprintln(d.options.Out, string(line))
	if r.ClientFaults > 0 || r.WrongBadges > 0 {
		return fmt.Errorf("%w: wrong badges: %d, client faults: %v", ErrWrong, r.WrongBadges, d.sim.ClientFaults())
	}
	return nil
}

// storm changes counts for the whole time of the check, or until ctx is done.
func (d *demo) storm(ctx context.Context) error {
	ticker := time.NewTicker(checkPace)
	defer ticker.Stop()
	over := time.NewTimer(d.options.Check)
	defer over.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-over.C:
			return nil
		case <-ticker.C:
		}
		for range checkBurst {
			if err := d.change(); err != nil {
				return err
			}
		}
	}
}

// judge waits until every device shows its mailbox's count, or ctx is done.
func (d *demo) judge(ctx context.Context) Result {
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	wrong := d.wrongBadges()
	for wrong > 0 && ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-ticker.C:
		}
		wrong = d.wrongBadges()
	}
	ledger := d.agent.Ledger()
	r := Result{
		Mailboxes: len(d.boxes.names), Devices: len(d.boxes.devices), Shared: d.boxes.shared(),
		Events: ledger.Submitted, Superseded: ledger.Replaced + ledger.Outcomes[agent.OutcomeSuperseded], Resent: d.relays.allResent(),
		Pushes: d.sim.Stats().Requests, WrongBadges: wrong,
	}
	for _, n := range d.sim.ClientFaults() {
		r.ClientFaults += n
	}
	return r
}

func (d *demo) wrongBadges() (wrong int) {
	for _, device := range d.boxes.devices {
		shown, ok := d.sim.Device(device.token)
		if !ok || shown.Badge != d.boxes.badge(device) {
			wrong++
		}
	}
	return wrong
}
