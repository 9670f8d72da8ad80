package operator

import (
	"fmt"
	"slices"
	"sort"

	"badgerelay/cmd/internal/command"
)

// place is where a subscription stands in what is imported, such as "line 5".
type place struct {
	word   string // line or entry
	number int    // from 1
}

// String returns it for people.
func (p place) String() string { return fmt.Sprintf("%s %d", p.word, p.number) }

// origins says where the subscriptions of an import come from. Those that follow each
// other, with no line between them, are kept as one if the relay has their apps.
type origins struct {
	apps  []string // the relay's; none: not known
	first []origin // of each run
	count int      // subscriptions so far
}

type origin struct {
	position int // in the import, from 1
	place    place
	app      string // empty: the relay has it
}

// follows reports whether o is in the run that first begins.
func (o origin) follows(first origin) bool {
	return o.app == first.app && o.place.number-first.place.number == o.position-first.position
}

// note keeps where what next yields comes from.
func (o *origins) note(next rows) rows {
	return func() (row, error) {
		r, err := next()
		if err != nil {
			return r, err
		}
		o.count++
		here := origin{o.count, r.place, r.GetApp()}
		if slices.Contains(o.apps, here.app) {
			here.app = ""
		}
		if n := len(o.first); n == 0 || !here.follows(o.first[n-1]) {
			o.first = append(o.first, here)
		}
		return r, nil
	}
}

// at returns where the subscription at a position comes from.
func (o *origins) at(position uint64) origin {
	after := sort.Search(len(o.first), func(i int) bool { return uint64(o.first[i].position) > position }) // #nosec G115 -- it is not negative
	if after == 0 || position > uint64(o.count) {                                                          // #nosec G115 -- as above
		return origin{place: place{"entry", int(position)}} // #nosec G115 -- for people; no relay counts so far
	}
	found := o.first[after-1]
	found.place.number += int(position) - found.position // #nosec G115 -- it is at most count
	return found
}

// mostDoubts is how many subscriptions an import warns of one by one, ours.
const mostDoubts = 20

// doubtful warns of mailboxes that the relay takes, and that subscription add refuses or
// warns of.
type doubtful struct {
	terminal     *Terminal
	organization string
	count        int
}

// warn warns of what next yields, and with the last of how many more there were.
func (d *doubtful) warn(next rows) rows {
	return func() (row, error) {
		r, err := next()
		if err != nil {
			if more := d.count - mostDoubts; more > 0 {
				d.terminal.Warn("%s as odd", command.Counted(more, "more mailbox is", "more mailboxes are"))
			}
			return r, err
		}
		doubt := mailboxDoubt(r.GetMailbox(), d.organization)
		if doubt == "" {
			return r, nil
		}
		if d.count++; d.count <= mostDoubts {
			d.terminal.Warn("%v: %s", r.place, doubt)
		}
		return r, nil
	}
}

// mailboxDoubt is what is odd about a mailbox; empty: nothing is, or the relay refuses it.
func mailboxDoubt(mailbox, organization string) string {
	if command.CheckMailboxName("mailbox", mailbox) != nil {
		return ""
	}
	if slip := command.CheckMailbox("mailbox", mailbox); slip != nil {
		return slip.Error()
	}
	return command.MailboxDoubt(mailbox, organization)
}
