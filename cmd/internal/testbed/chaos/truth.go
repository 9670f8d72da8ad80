package chaos

import (
	"fmt"
	"sync"
	"time"

	"badgerelay/cmd/internal/rig/names"
)

// period is after how many versions a count may come again (names.Unread).
const period = 997

// Truth is what the mailboxes hold, and which of them each device is on. Safe
// for concurrent use.
type Truth struct {
	owner []int // by mailbox: the number of its organization

	mu      sync.Mutex    // guards what follows
	setAt   [][]time.Time // by mailbox: when each version was set, from version 1 on
	events  uint64
	devices []deviceTruth
}

type deviceTruth struct {
	mailbox int
	also    int       // the second mailbox that it is on; -1: none
	judged  bool      // false: it is on its way from or to a mailbox
	since   time.Time // when it was judged from
}

// NewTruth returns mailboxes without events, of which each has an organization
// and so many devices.
func NewTruth(owner []int, devicesEach int) *Truth {
	t := &Truth{owner: owner, setAt: make([][]time.Time, len(owner)), devices: make([]deviceTruth, len(owner)*devicesEach)}
	for d := range t.devices {
		t.devices[d] = deviceTruth{mailbox: d / devicesEach, also: -1, judged: true}
	}
	return t
}

// Owner returns the number of the mailbox's organization.
func (t *Truth) Owner(mailbox int) int { return t.owner[mailbox] }

// Change makes a new version of a mailbox.
func (t *Truth) Change(mailbox int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.setAt[mailbox] = append(t.setAt[mailbox], time.Now())
	t.events++
}

// Version returns a mailbox's newest version; 0: it had no event.
func (t *Truth) Version(mailbox int) uint32 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return uint32(len(t.setAt[mailbox]))
}

// Events returns how many versions were made.
func (t *Truth) Events() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.events
}

// Share says that the device is on a second mailbox, and shows the sum.
func (t *Truth) Share(device, mailbox int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.devices[device].also = mailbox
}

// Shared returns whether the device shows a sum.
func (t *Truth) Shared(device int) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.devices[device].also >= 0
}

// Suspend says that nobody can know what the device has to show. It reports
// false if that is so already.
func (t *Truth) Suspend(device int) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	was := t.devices[device].judged
	t.devices[device].judged = false
	return was
}

// Mailbox returns the mailbox that the device is on or was on last.
func (t *Truth) Mailbox(device int) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.devices[device].mailbox
}

// Settle says that the device is on a mailbox from now on.
func (t *Truth) Settle(device, mailbox int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.devices[device] = deviceTruth{mailbox: mailbox, also: -1, judged: true, since: time.Now()}
}

// Verdict is what a look at all devices found.
type Verdict struct {
	Wrong   int           // devices that do not show the newest count
	Longest time.Duration // how long the worst of them has been behind
	Unknown int           // devices on their way
	Example string        // the worst of them
	Each    []string      // the first ten of them
	Foreign []int         // devices that show a count of another organization than theirs, on their way or not
}

// named is how many wrong devices are named.
const named = 10

// Judge compares what the devices show with what they have to.
func (t *Truth) Judge(badges []uint32) (v Verdict) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	for d, shown := range badges {
		device := &t.devices[d]
		if shown != 0 && device.also < 0 && names.OrganizationOf(shown) != t.owner[device.mailbox] {
			v.Foreign = append(v.Foreign, d)
		}
		if !device.judged {
			v.Unknown++
			continue
		}
		newest := uint32(len(t.setAt[device.mailbox]))
		want := t.unread(device.mailbox, newest)
		if device.also >= 0 {
			want += t.unread(device.also, uint32(len(t.setAt[device.also])))
		}
		if shown == want {
			continue
		}
		v.Wrong++
		since := device.since
		if device.also >= 0 {
			since = t.lastSet(since, device.mailbox, device.also)
		} else if newest > 0 {
			if next := t.setAt[device.mailbox][t.shownVersion(device.mailbox, shown, newest)]; next.After(since) {
				since = next
			}
		}
		behind := now.Sub(since)
		if behind < v.Longest && len(v.Each) == named {
			continue
		}
		text := fmt.Sprintf("device %d, of mailbox %d of organization %d, shows %d, want %d, for %v",
			d, device.mailbox, t.owner[device.mailbox], shown, want, behind.Round(time.Millisecond))
		if behind >= v.Longest {
			v.Longest, v.Example = behind, text
		}
		if len(v.Each) < named {
			v.Each = append(v.Each, text)
		}
	}
	return v
}

// lastSet returns when one of the mailboxes of a sum changed last: it has been wrong
// since then at least.
func (t *Truth) lastSet(since time.Time, mailboxes ...int) time.Time {
	for _, m := range mailboxes {
		if n := len(t.setAt[m]); n > 0 && t.setAt[m][n-1].After(since) {
			since = t.setAt[m][n-1]
		}
	}
	return since
}

// unread returns what a version of the mailbox says.
func (t *Truth) unread(mailbox int, version uint32) uint32 {
	return names.UnreadOf(t.owner[mailbox], mailbox, version)
}

// shownVersion returns the last version before newest that says shown; 0 if
// there is none, as with a device that shows nothing. mu must be held.
func (t *Truth) shownVersion(mailbox int, shown, newest uint32) uint32 {
	for v := newest - 1; v > 0 && v+period > newest; v-- {
		if t.unread(mailbox, v) == shown {
			return v
		}
	}
	return 0
}
