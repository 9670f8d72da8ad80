package simulation

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"badgerelay/apns"
)

// Some devices are on several mailboxes, of one organization or of several, and show
// their sum. Whose counts a sum is made of can be told from its remainder by spread, as far
// as no mailbox among them was empty.

// parts returns every mailbox that the device is on.
func (d *device) parts() (parts []*mailbox) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, on := range d.on {
		parts = append(parts, on...)
	}
	slices.SortFunc(parts, func(a, b *mailbox) int { return a.number - b.number })
	return parts
}

// everShared reports whether the device's badges may have been sums.
func (d *device) everShared() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.shared
}

// share has a device sign in to a mailbox of another organization as well, or
// leave it.
func (w *world) share(s *Step) {
	if len(w.devices) == 0 || len(w.organizations) == 1 {
		return
	}
	d := w.devices[s.pick(0, len(w.devices))]
	o := w.organizations[s.pick(1, len(w.organizations))]
	on, r := []*mailbox(nil), (*registration)(nil)
	switch had := d.at(o); {
	case s.Kind == Share:
		to := w.mailboxOfOrganization(s, o)
		on, r = []*mailbox{to}, d.signInTo(to, false)
		if slices.Equal(on, had) {
			return
		}
	case len(had) == 0:
		return
	default:
		on, r = had[1:], d.signOutOf(had[0])
	}
	if o == d.organization || !d.depart() {
		return
	}
	d.willShare()
	w.trace.add("device %d shares", d.number)
	w.background.Go(func() { w.signIn(d, r, on, s) })
}

// several has a device come to one more of its organization's mailboxes, or has the
// organization say all that it is on.
func (w *world) several(s *Step) {
	if len(w.devices) == 0 {
		return
	}
	d := w.devices[s.pick(0, len(w.devices))]
	on := d.at(d.organization)
	var r *registration
	if to := w.mailboxOfOrganization(s, d.organization); s.Kind == Add {
		if slices.Contains(on, to) {
			return
		}
		on, r = append(on, to), d.signInTo(to, true)
	} else {
		on = on[:0]
		for i := range s.pick(3, 4) {
			if to := w.mailboxOfOrganization(&Step{Draw: s.Draw + uint64(i)}, d.organization); !slices.Contains(on, to) {
				on = append(on, to)
			}
		}
		r = d.set(d.organization, on)
	}
	if !d.depart() {
		return
	}
	if len(on) > 1 {
		d.willShare()
	}
	w.trace.add("device %d departs to %d mailboxes", d.number, len(on))
	w.background.Go(func() { w.signIn(d, r, on, s) })
}

// signInAnew has a device register with every mailbox that it is on, and with those of
// its own organization last.
func (w *world) signInAnew(d *device, s *Step) {
	for _, o := range w.organizations {
		if on := d.at(o); o != d.organization && len(on) > 0 && !w.keepSigningIn(d, d.signInAll(o, on), s) {
			return
		}
	}
	own := d.at(d.organization)
	if len(own) == 0 {
		d.arrive(d.organization)
		return
	}
	w.signIn(d, d.signInAll(d.organization, own), own, s)
}

// judgeSum says whether a device shows the sum of its mailboxes.
func (w *world) judgeSum(when string, d *device, parts []*mailbox, shown uint32) {
	if !slices.ContainsFunc(parts, func(m *mailbox) bool { return !m.organization.disabled }) {
		return // nobody pushes
	}
	var may []uint32
	for _, summed := range w.summed(d, parts) {
		want := uint32(0)
		for _, m := range summed {
			if !m.organization.disabled {
				want += m.newest().unread
			}
		}
		may = append(may, want)
	}
	if !slices.Contains(may, shown) {
		w.wrong++
		_, _, since := d.place()
		w.problem("%s: device %d shows %d since %s, want %d, the sum of %s, where it is since %s", when, d.number, shown,
			w.clock(w.lastShown(d)), may, describeParts(parts), w.clock(since))
	}
}

// summed returns which mailboxes of a device's may be in its sum: all of them, or where
// there is no sum across organizations those of one of them: of its owner, or of any
// where that is not known, as it is not of a device that is nil.
func (w *world) summed(d *device, parts []*mailbox) (sums [][]*mailbox) {
	if !w.plan.OneOrganization {
		return [][]*mailbox{parts}
	}
	var owner *organization
	if d != nil {
		owner = w.ownerOf(d)
	}
	for _, o := range w.organizations {
		if owner != nil && o != owner {
			continue
		}
		of := slices.DeleteFunc(slices.Clone(parts), func(m *mailbox) bool { return m.organization != o })
		if len(of) > 0 && !o.disabled {
			sums = append(sums, of)
		}
	}
	return sums
}

func (w *world) lastShown(d *device) time.Time {
	shown := w.apns.history(d.token)
	if len(shown) == 0 {
		return time.Time{}
	}
	return shown[len(shown)-1].at
}

func describeParts(parts []*mailbox) string {
	var all []string
	for _, m := range parts {
		v := m.newest()
		all = append(all, fmt.Sprintf("%d (version %d of %s of %s)", v.unread, v.number, m.name, m.organization.name))
	}
	return strings.Join(all, " and ")
}

// judgeSums says which devices showed a sum without one of their mailboxes, after
// they had shown it with all of them. A mailbox may be missing that was empty
// once, and the sum of a relay that had not heard of the device may come for
// changeTime.
func (w *world) judgeSums() {
	if w.plan.has(Disable) {
		return // what is disabled counts nothing
	}
	for _, d := range w.devices {
		parts := d.parts()
		_, _, since := d.place()
		if len(parts) < 2 {
			continue
		}
		var may, whole []uint32
		for _, summed := range w.summed(nil, parts) {
			left := remainders(summed)
			may, whole = append(may, left...), append(whole, left[len(left)-1])
		}
		complete := false
		for _, s := range w.apns.history(d.token) {
			if s.at.Before(since.Add(changeTime)) {
				continue
			}
			left := s.badge % spread
			complete = complete || slices.Contains(whole, left)
			if complete && !slices.Contains(may, left) {
				w.wrong++
				w.problem("device %d showed %d at %s, which is no sum of %s", d.number, s.badge, w.clock(s.at), describeParts(parts))
			}
		}
	}
}

// remainders returns what sums of the mailboxes may leave by spread, that of all of
// them last.
func remainders(parts []*mailbox) []uint32 {
	all := []uint32{0}
	for _, m := range parts {
		left := uint32(m.number) + 1
		with := make([]uint32, 0, 2*len(all))
		for _, r := range all {
			if m.numberOf(0) > 0 {
				with = append(with, r)
			}
		}
		for _, r := range all {
			with = append(with, (r+left)%spread)
		}
		all = with
	}
	return all
}

// pushes notes that a relay has a push more or less in flight to a device. Of those
// that live one may push to a shared device, once all have heard that it is.
func (w *world) pushes(p *relayProcess, token apns.DeviceToken, n int) {
	w.mu.Lock()
	by := w.pushing[token]
	if by == nil {
		by = map[*relayProcess]int{}
		w.pushing[token] = by
	}
	by[p] += n
	live := 0
	for other, flying := range by {
		if flying > 0 && !other.dead.Load() {
			live++
		}
	}
	w.mu.Unlock()
	if n < 0 || live < 2 {
		return
	}
	for _, d := range w.devices {
		if _, moving, since := d.place(); d.token == token && !moving && len(d.parts()) > 1 && time.Since(since) > changeTime {
			w.problem("%d relays push to device %d at once", live, d.number)
		}
	}
}
