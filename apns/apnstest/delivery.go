package apnstest

import (
	"time"
)

// How an accepted push reaches the screen: at most one is stored per device
// while it is off line, the newest, until it expires (rule D1; Apple, "Viewing
// the status of push notifications", read 2026-11).

// show puts n on the screen. The shard's lock must be held.
func (d *device) show(n *notification, now time.Time) {
	d.Shown++
	d.PushedAt = now
	if n.badge >= 0 {
		d.Badge = uint32(n.badge)
	}
}

// accept takes a push that is answered 200. The shard's lock must be held.
func (s *Simulator) accept(d *device, n notification, priority int, now time.Time) {
	d.Accepted++
	d.Version++
	if !d.UnregisteredAt.IsZero() {
		return // the app is gone, only APNs does not say so yet
	}
	if !d.Online {
		if n.expires != 0 {
			stored := n
			d.stored, d.Waiting = &stored, true
		}
		return
	}
	if s.cfg.PowerDelay > 0 && priority < 10 {
		late := n
		time.AfterFunc(s.randomDuration(s.cfg.PowerDelay), func() { s.showLate(d, &late) })
		return
	}
	if s.cfg.ReorderRate > 0 && d.held == nil && s.chance(s.cfg.ReorderRate) {
		held := n
		d.held = &held
		time.AfterFunc(time.Second, func() { s.showHeld(d, &held) })
		return
	}
	if !s.cfg.Fast && d.Shown > 0 && n.badge == int64(d.Badge) {
		s.counters.repeated.Add(1)
	}
	d.show(&n, now)
	if held := d.held; held != nil {
		d.held = nil
		d.show(held, now)
	}
}

// showLate shows a push that waited for the device's convenience.
func (s *Simulator) showLate(d *device, n *notification) {
	s.devices.update(d.Token, func(d *device) bool {
		if !d.UnregisteredAt.IsZero() {
			return false
		}
		d.show(n, time.Now())
		return true
	})
}

// showHeld shows a push held back for reordering if no other came to pass it.
func (s *Simulator) showHeld(d *device, n *notification) {
	s.devices.update(d.Token, func(d *device) bool {
		if d.held != n {
			return false
		}
		d.held = nil
		d.show(n, time.Now())
		return true
	})
}
