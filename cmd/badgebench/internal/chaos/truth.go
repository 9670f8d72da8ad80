package chaos

import (
	"fmt"
	"sync"
	"time"

	"badgerelay/cmd/badgebench/internal/names"
)

// period is after how many versions a count may come again (names.Unread).
const period = 997

// Truth is what the mailboxes hold, and which of them each device is on. Safe
// for concurrent use.
type Truth struct {
	mu      sync.Mutex    // guards what follows
	setAt   [][]time.Time // by mailbox: when each version was set, from version 1 on
	events  uint64
	devices []deviceTruth
}

type deviceTruth struct {
	mailbox int
	judged  bool      // false: it is on its way from or to a mailbox
	since   time.Time // when it was judged from
}

// NewTruth returns mailboxes without events, of which each has so many devices.
func NewTruth(mailboxes, devicesEach int) *Truth {
	t := &Truth{setAt: make([][]time.Time, mailboxes), devices: make([]deviceTruth, mailboxes*devicesEach)}
	for d := range t.devices {
		t.devices[d] = deviceTruth{mailbox: d / devicesEach, judged: true}
	}
	return t
}

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
	t.devices[device] = deviceTruth{mailbox: mailbox, judged: true, since: time.Now()}
}

// Verdict is what a look at all devices found.
type Verdict struct {
	Wrong   int           // devices that do not show the newest count
	Longest time.Duration // how long the worst of them has been behind
	Unknown int           // devices on their way
	Example string
}

// Judge compares what the devices show with what they have to.
func (t *Truth) Judge(badges []uint32) (v Verdict) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	for d, shown := range badges {
		device := &t.devices[d]
		if !device.judged {
			v.Unknown++
			continue
		}
		newest := uint32(len(t.setAt[device.mailbox]))
		want := names.Unread(device.mailbox, newest)
		if shown == want {
			continue
		}
		v.Wrong++
		since := device.since
		if newest > 0 {
			if next := t.setAt[device.mailbox][t.shownVersion(device.mailbox, shown, newest)]; next.After(since) {
				since = next
			}
		}
		if behind := now.Sub(since); behind >= v.Longest {
			v.Longest = behind
			v.Example = fmt.Sprintf("device %d, of %s, shows %d, want %d, for %v", d, names.Mailbox(device.mailbox), shown, want, behind.Round(time.Millisecond))
		}
	}
	return v
}

// shownVersion returns the last version before newest that says shown; 0 if
// there is none, as with a device that shows nothing. mu must be held.
func (t *Truth) shownVersion(mailbox int, shown, newest uint32) uint32 {
	for v := newest - 1; v > 0 && v+period > newest; v-- {
		if names.Unread(mailbox, v) == shown {
			return v
		}
	}
	return 0
}
