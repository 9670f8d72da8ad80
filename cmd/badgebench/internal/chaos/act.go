package chaos

import (
	"context"
	"time"

	"badgerelay/cmd/badgebench/internal/apple"
	"badgerelay/cmd/badgebench/internal/site"
)

// act does a step. An error is a problem of the run.
func (s *stage) act(ctx context.Context, step *Step) error {
	kills := map[Kind]int{KillRelay: 1, KillStarting: 2, KillSite: 1}
	s.count(step.Kind, kills[step.Kind])
	s.trace("%s %d", step.Kind, step.Draw%1000)
	switch step.Kind {
	case KillRelay:
		return s.relay.kill(ctx)
	case KillStarting:
		return s.relay.killTwice(ctx, step.between(0, 400*time.Millisecond))
	case StopRelay:
		return s.relay.stop(ctx)
	case ReloadRelay:
		return s.relay.reload()
	case PauseRelay:
		return s.relay.pause(ctx, step.between(100*time.Millisecond, 700*time.Millisecond))
	case KillSite:
		return s.sites[step.Draw%uint64(len(s.sites))].kill(ctx)
	case RollKey:
		s.rolls.Lock()
		defer s.rolls.Unlock()
		return s.world.RollKey(ctx)
	case Outage:
		return s.outage(ctx)
	case LockRegistry:
		return s.world.LockRegistry(ctx, step.between(200*time.Millisecond, 3*time.Second))
	case FillDisk:
		return s.world.FillDisk(ctx, step.between(200*time.Millisecond, 2*time.Second))
	case Leave:
		return s.leave(ctx, step)
	case Move:
		return s.move(ctx, step)
	}
	return s.apple.Make(ctx, trouble(step))
}

// trouble is a fault of the simulated Apple: of connections, it strikes one with
// its next request, or all of them at once.
func trouble(step *Step) apple.Trouble {
	switch {
	case step.fault.OfRequest():
		return apple.Trouble{Fault: step.fault, N: 1 + int(step.Draw%5)}
	case step.fault.OfConnection():
		return apple.Trouble{Fault: step.fault, N: int(step.Draw % 2)}
	}
	return apple.Trouble{Fault: step.fault, N: 1}
}

func (s *stage) outage(ctx context.Context) error {
	if err := s.apple.Outage(ctx, true); err != nil {
		return err
	}
	pause(ctx, outageTime(s.config.Duration))
	return s.apple.Outage(ctx, false)
}

// leave has a device unregister, register again, and sign in again.
func (s *stage) leave(ctx context.Context, step *Step) error {
	device := int(step.Draw % uint64(s.world.Devices()))
	if !s.truth.Suspend(device) {
		return nil // it is on its way already
	}
	mailbox := s.truth.Mailbox(device)
	if err := s.apple.Unregister(ctx, device); err != nil {
		return err
	}
	pause(ctx, step.between(50*time.Millisecond, 2*time.Second))
	if err := s.apple.Register(ctx, device); err != nil {
		return err
	}
	return s.signIn(ctx, device, mailbox)
}

// move has a device sign in to another mailbox.
func (s *stage) move(ctx context.Context, step *Step) error {
	device := int(step.Draw % uint64(s.world.Devices()))
	if !s.truth.Suspend(device) {
		return nil // it is on its way already
	}
	return s.signIn(ctx, device, int(step.Draw/7%uint64(s.world.Mailboxes)))
}

// signIn puts the device on the mailbox, however often it takes. The site then
// says what the mailbox holds, as an agent does when a device subscribes.
func (s *stage) signIn(ctx context.Context, device, mailbox int) error {
	through := s.sites[device%len(s.sites)]
	for {
		err := through.subscribe(ctx, site.Subscription{Device: device, Mailbox: mailbox, Patience: 2 * time.Second})
		if err == nil {
			break
		}
		pause(ctx, 50*time.Millisecond)
		if ctx.Err() != nil {
			return err
		}
	}
	s.truth.Settle(device, mailbox)
	s.tell(mailbox)
	return nil
}
