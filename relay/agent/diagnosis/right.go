package diagnosis

import (
	"fmt"
)

// allRight says that the badge is right, as far as can be known.
func allRight(f *Facts) *Verdict {
	count, _ := f.newest()
	devices := f.devices()
	first, _ := devices[0].badge()
	since, same := devices[0].since(), true
	for _, d := range devices {
		shows, _ := d.badge()
		same = same && shows == first
		if at := d.since(); at.AsTime().After(since.AsTime()) {
			since = at
		}
	}
	what := fmt.Sprintf("%d on %s", first, number(len(devices)))
	if !same {
		what = "sums with other mailboxes' counts on " + number(len(devices))
	} else if first != count.GetUnreadCount() {
		what += fmt.Sprintf(", of which %d from this mailbox,", count.GetUnreadCount())
	}
	beside := ""
	if _, silent := f.answered(); len(silent) > 0 && absentAgent(f) == nil {
		beside = fmt.Sprintf(" %s did not answer: %s.", relayName(silent[0]), silent[0].GetError())
	}
	if f.Report.GetRegistryError() != "" {
		beside += " The registry does not answer, so that other relays are not known."
	}
	if f.Operator || f.Agent == nil || f.Agent.Counted == nil {
		return verdict(Right, "The badge is what the agent told last: %s since %s.%s", what, f.clock(since), beside)
	}
	return verdict(Right, "The badge is right: %s since %s.%s", what, f.clock(since), beside)
}
