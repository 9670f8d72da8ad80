package relay

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// sumModel is a device of which two relays tell each other, without the relays: what
// SharedDevice.Merge alone decides.
type sumModel struct {
	random   *rand.Rand
	now      time.Time
	device   SharedDevice
	live     map[MailboxKey]LivePart
	counts   map[MailboxKey]uint32 // the newest of those that are live
	disabled map[OrganizationID]bool
	single   bool // the app shows no sum across organizations
	shown    uint32
	unready  time.Time     // since when the sum waits; zero: it does not
	longest  time.Duration // that one did
	told     strings.Builder
}

func (m *sumModel) note(format string, args ...any) {
	fmt.Fprintf(&m.told, "%s %s\n", m.now.Format("15:04:05.000"), fmt.Sprintf(format, args...))
}

func (m *sumModel) exchange(u SharedUpdate, relay string) {
	var live []LivePart
	for _, l := range m.live {
		l.Disabled = m.disabled[l.Key.Organization]
		live = append(live, l)
	}
	u.OneOrganization = m.single
	d := &m.device
	d.Merge(&u, ExchangeTerms{Relay: relay, Now: m.now, Lifetime: time.Minute, ShownFor: time.Hour, Live: live})
	switch {
	case !d.Shared || !d.Outstanding() || d.Ready(m.now):
		m.unready = time.Time{}
	case m.unready.IsZero():
		m.unready = m.now
	default:
		m.longest = max(m.longest, m.now.Sub(m.unready))
	}
}

// push has the relay that pushes do so, if it may, and APNs accept it.
func (m *sumModel) push() {
	if d := &m.device; d.Shared && d.Pusher != "" && d.Outstanding() && d.Ready(m.now) {
		m.shown = d.Sum()
		m.note("push %d", m.shown)
		m.exchange(SharedUpdate{Accepted: d.Sequence}, d.Pusher)
	}
}

func (m *sumModel) relay() string { return []string{"one", "two"}[m.random.IntN(2)] }

// change has something happen to the device.
func (m *sumModel) change() {
	keys := []MailboxKey{{1, "a"}, {1, "b"}, {2, "c"}, {2, "d"}, {3, "e"}}
	key := keys[m.random.IntN(len(keys))]
	_, there := m.live[key]
	switch action := m.random.IntN(8); {
	case action == 0 && !there:
		m.note("%v comes", key)
		m.live[key] = LivePart{Key: key, CreatedAt: m.now}
	case action == 1 && there && len(m.live) > 2:
		m.note("%v leaves", key)
		delete(m.live, key)
		delete(m.counts, key)
		m.device.Sequence++ // as who changes subscriptions does
		m.exchange(SharedUpdate{}, m.relay())
	case action <= 3 && there:
		m.counts[key] = uint32(m.random.IntN(3)) << (8 * m.random.IntN(3))
		m.note("%v has %d", key, m.counts[key])
		m.exchange(SharedUpdate{Counts: []ReceivedCount{{key, m.counts[key], m.now}}}, m.relay())
	case action == 7 && there: // what two mailboxes have is exchanged
		to := keys[m.random.IntN(len(keys))]
		if _, there := m.live[to]; there && to.Organization == key.Organization {
			m.counts[key], m.counts[to] = m.counts[to], m.counts[key]
			m.note("%v has %d, and %v %d", key, m.counts[key], to, m.counts[to])
			m.exchange(SharedUpdate{Counts: []ReceivedCount{{key, m.counts[key], m.now}, {to, m.counts[to], m.now}}}, m.relay())
		}
	case action == 4:
		m.disabled[key.Organization] = !m.disabled[key.Organization]
		m.note("disabled: %v", m.disabled)
		m.device.Sequence++
	case action == 5 && m.random.IntN(4) == 0:
		m.single = !m.single
		m.note("a sum of one organization alone: %v", m.single)
	case action == 6:
		m.now = m.now.Add(time.Duration(m.random.IntN(70_000)) * time.Millisecond)
	}
}

// wrong says what is wrong when two minutes have passed; empty: nothing.
func (m *sumModel) wrong() string {
	d := &m.device
	want, disabled, counted := uint32(0), false, false
	for i := range d.Parts {
		p := &d.Parts[i]
		if disabled = disabled || p.Disabled; !p.Disabled {
			want += m.counts[p.Key]
			counted = counted || p.hasCount()
		}
	}
	switch {
	case !d.Shared:
		return ""
	case disabled && !counted && !d.Outstanding():
		return "" // it may show what it did when the last organization was disabled
	case d.Sum() != want || m.shown != want:
		return fmt.Sprintf("it shows %d, and the sum is %d; want %d", m.shown, d.Sum(), want)
	case d.Outstanding() || d.Again(m.now):
		return "it is due for ever"
	case m.longest > fallTimeout+time.Second:
		return fmt.Sprintf("a sum has waited for %v", m.longest)
	}
	return ""
}

// TestSumsByChance has mailboxes come, leave and change, organizations be disabled and
// enabled, and relays and time go on in between. Two minutes later the device shows the
// sum of all, and at no time was one held back for long.
func TestSumsByChance(t *testing.T) {
	for seed := range uint64(5000) {
		m := &sumModel{
			random: rand.New(rand.NewPCG(seed, 1)), now: time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC),
			live: map[MailboxKey]LivePart{}, counts: map[MailboxKey]uint32{}, disabled: map[OrganizationID]bool{},
		}
		for _, key := range []MailboxKey{{1, "a"}, {1, "b"}} {
			m.live[key] = LivePart{Key: key, CreatedAt: m.now}
		}
		m.now = m.now.Add(time.Second)
		m.exchange(SharedUpdate{}, "one")
		for range 3 + m.random.IntN(12) {
			if m.change(); m.random.IntN(2) == 0 {
				m.exchange(SharedUpdate{}, m.relay())
			}
			m.now = m.now.Add(time.Duration(m.random.IntN(1500)) * time.Millisecond)
			if m.random.IntN(2) == 0 {
				m.push()
			}
		}
		m.unready, m.longest = time.Time{}, 0 // relays look at what is due once a second from now on
		for range 130 {
			m.now = m.now.Add(time.Second)
			m.exchange(SharedUpdate{}, m.relay())
			m.push()
		}
		if wrong := m.wrong(); wrong != "" {
			t.Fatalf("seed %d: %s: %+v\n%s", seed, wrong, m.device, &m.told)
		}
	}
}
