package chaos

import (
	"context"
	"math/rand/v2"
	"time"

	"badgerelay/cmd/internal/rig"
	"badgerelay/cmd/internal/rig/apple"
	"badgerelay/cmd/internal/testbed/site"
)

// act does a step. An error is a problem of the run.
func (s *stage) act(ctx context.Context, step *Step) error {
	if step.Kind == StepClock {
		if !s.clock.TryLock() {
			return nil // it is wrong already, and would be so for minutes
		}
		defer s.clock.Unlock()
	}
	if ofRelay[step.Kind] {
		return s.actOnRelay(ctx, step)
	}
	s.count(step.Kind)
	s.trace("%s %d", step.Kind, step.Draw%1000)
	switch step.Kind {
	case RollRelays:
		return s.rollRelays(ctx)
	case Partition:
		return s.partition(ctx, step)
	case DeadAddress:
		return s.deadAddress(ctx, step)
	case WrongTopic:
		return s.misconfigure(ctx, step, rig.WrongTopic)
	case WrongEnvironment:
		return s.misconfigure(ctx, step, rig.WrongEnvironment)
	case FailOver:
		return s.failOver()
	case Twin:
		return s.sites[step.Draw%uint64(len(s.sites))].twinFor(ctx, step.between(2*time.Second, 20*time.Second), step.Draw>>8&1 == 1)
	case KillSite:
		return s.sites[step.Draw%uint64(len(s.sites))].kill(ctx)
	case RollKey, LoseKey, Disable:
		return s.administer(ctx, step)
	case Flood:
		s.flood(ctx, step)
		return nil
	case Outage:
		return s.outage(ctx)
	case LockRegistry, SlowRegistry, ReadOnly:
		return s.hinderRegistry(ctx, step)
	case FillDisk:
		return s.world.FillDisk(ctx, step.between(200*time.Millisecond, 2*time.Second))
	case StepClock:
		return s.stepClock(ctx, step)
	case Leave:
		return s.leave(ctx, step)
	case Move:
		return s.move(ctx, step)
	}
	return s.apple.Make(ctx, trouble(step))
}

// ofRelay are the kinds that happen to one relay.
var ofRelay = map[Kind]bool{KillRelay: true, KillStarting: true, StopRelay: true, ReloadRelay: true, PauseRelay: true, Freeze: true}

// actOnRelay does a step to the relay that it draws.
func (s *stage) actOnRelay(ctx context.Context, step *Step) error {
	k := s.lockRelay(step.Draw>>40, step.lasts > 0)
	if k == nil {
		return nil // something happens to it already
	}
	defer k.mu.Unlock()
	s.count(step.Kind)
	s.trace("%s %d", step.Kind, k.number)
	switch step.Kind {
	case KillRelay:
		return k.kill(ctx)
	case KillStarting:
		return k.killTwice(ctx, step.between(0, 400*time.Millisecond))
	case StopRelay:
		return k.stop(ctx)
	case ReloadRelay:
		return s.world.Reload(k.relay)
	case Freeze:
		defer s.hinder()()
		lasts := step.frozen()
		s.trace("relay %d is frozen for %v", k.number, lasts)
		thenKill := step.lasts == 0 && step.Draw>>8%4 == 0
		if thenKill {
			s.countKill()
		}
		return k.freeze(ctx, lasts, thenKill)
	}
	return k.freeze(ctx, step.between(100*time.Millisecond, 700*time.Millisecond), false)
}

// rollRelays replaces every relay, one after the other, as a rolling upgrade does.
func (s *stage) rollRelays(ctx context.Context) error {
	for i := range s.relays {
		k := s.lockRelay(uint64(i), false)
		if k == nil {
			continue
		}
		err := k.stop(ctx)
		k.mu.Unlock()
		if err != nil {
			return err
		}
	}
	return nil
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

// administer does what an operator does to an organization, one thing at a time.
func (s *stage) administer(ctx context.Context, step *Step) error {
	o := s.drawOrganization(step)
	o.admin.Lock()
	defer o.admin.Unlock()
	gone, cutOff := step.between(500*time.Millisecond, 6*time.Second), func() error { return s.cutOff(ctx, o) }
	switch step.Kind {
	case LoseKey:
		return s.world.LoseKey(ctx, o.Organization, gone, cutOff)
	case Disable:
		return s.world.Disable(ctx, o.Organization, gone, cutOff)
	}
	return s.world.RollKey(ctx, o.Organization)
}

func (s *stage) drawOrganization(step *Step) *organization {
	return s.organizations[step.Draw>>32%uint64(len(s.organizations))]
}

// flood has an organization's mailboxes change ten times as often as those of
// all do otherwise.
func (s *stage) flood(ctx context.Context, step *Step) {
	ctx, cancel := context.WithTimeout(ctx, step.between(500*time.Millisecond, 3*time.Second))
	defer cancel()
	o := s.drawOrganization(step)
	s.change(ctx, 10*s.config.Rate, step.Draw, func(rng *rand.Rand) int { return o.First + rng.IntN(o.Mailboxes) })
}

// stepClock has the relay's clock go wrong, and sets it right after a while.
// s.clock is held.
func (s *stage) stepClock(ctx context.Context, step *Step) error {
	s.trace("the clock goes wrong by %v", step.clockStep())
	if err := s.world.StepClock(step.clockStep()); err != nil {
		return err
	}
	rig.Wait(ctx, step.between(500*time.Millisecond, 8*time.Second))
	return s.world.StepClock(0)
}

// hinderRegistry makes one kind of trouble for the registry at a time: a file that
// is read-only can't be locked either.
func (s *stage) hinderRegistry(ctx context.Context, step *Step) error {
	s.registry.Lock()
	defer s.registry.Unlock()
	switch step.Kind {
	case SlowRegistry:
		return s.world.SlowRegistry(ctx, step.between(time.Second, 6*time.Second))
	case ReadOnly:
		return s.world.ReadOnlyRegistry(ctx, step.between(200*time.Millisecond, 4*time.Second))
	}
	return s.world.LockRegistry(ctx, step.between(200*time.Millisecond, 3*time.Second))
}

func (s *stage) outage(ctx context.Context) error {
	if err := s.apple.Outage(ctx, true); err != nil {
		return err
	}
	rig.Wait(ctx, s.config.Outage)
	return s.apple.Outage(ctx, false)
}

// wanderer returns a device for a step that takes it off its mailbox. One that
// shows a sum stays where it is.
func (s *stage) wanderer(draw uint64) int {
	n := uint64(s.world.Devices())
	device := int(draw % n)
	for range n {
		if !s.truth.Shared(device) {
			break
		}
		device = int((uint64(device) + 1) % n)
	}
	return device
}

// leave has a device unregister, register again, and sign in again.
func (s *stage) leave(ctx context.Context, step *Step) error {
	device := s.wanderer(step.Draw)
	if !s.truth.Suspend(device) {
		return nil // it is on its way already
	}
	mailbox := s.truth.Mailbox(device)
	if err := s.apple.Unregister(ctx, device); err != nil {
		return err
	}
	rig.Wait(ctx, step.between(50*time.Millisecond, 2*time.Second))
	if err := s.apple.Register(ctx, device); err != nil {
		return err
	}
	return s.signIn(ctx, device, mailbox)
}

// move has a device sign in to another mailbox of its organization.
func (s *stage) move(ctx context.Context, step *Step) error {
	device := s.wanderer(step.Draw)
	if stays, _ := s.settled.Load(device); stays == true || !s.truth.Suspend(device) {
		return nil // it is on its way already, or has to stay
	}
	o := s.organizationOf(s.truth.Mailbox(device))
	return s.signIn(ctx, device, o.First+int(step.Draw/7%uint64(o.Mailboxes)))
}

// signIn puts the device on the mailbox, however often it takes. The site then
// says what the mailbox holds, as an agent does when a device subscribes.
func (s *stage) signIn(ctx context.Context, device, mailbox int) error {
	sites := s.organizationOf(mailbox).sites
	through := sites[device%len(sites)]
	for {
		err := through.subscribe(ctx, site.Subscription{Device: device, Mailbox: mailbox, Timeout: 2 * time.Second})
		if err == nil {
			break
		}
		// With several relays the attempt may be carried out late, by a relay that
		// was frozen or parted. Then the device must not be anywhere else.
		s.settled.Store(device, len(s.relays) > 1)
		s.trace("device %d can't sign in to mailbox %d: %v", device, mailbox, err)
		rig.Wait(ctx, 50*time.Millisecond)
		if ctx.Err() != nil {
			return err
		}
	}
	s.truth.Settle(device, mailbox)
	s.tell(mailbox)
	return nil
}
