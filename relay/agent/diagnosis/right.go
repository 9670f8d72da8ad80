package diagnosis

import (
	"fmt"
	"slices"

	pb "badgerelay/proto/badgerelay/v1"
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

// appBeside notes that later counts are not pushed.
func appBeside(f *Facts) *Verdict {
	for _, d := range f.devices() {
		if v := f.appTrouble(f.pusher(d), d.app); v != nil {
			return v
		}
	}
	return nil
}

// partBeside notes mailboxes of a sum whose counts nobody has told, so that they count as
// nothing.
func partBeside(f *Facts) *Verdict {
	var missing []string
	for _, d := range f.devices() {
		for _, p := range d.parts {
			switch {
			case p.UnreadCount != nil, p.GetDisabled(), p.GetAwaited():
			case p.GetOrganization() != f.Report.GetOrganization():
				missing = append(missing, p.GetMailbox()+" of "+p.GetOrganization())
			default:
				missing = append(missing, p.GetMailbox())
			}
		}
	}
	slices.Sort(missing)
	switch missing = slices.Compact(missing); len(missing) {
	case 0:
		return nil
	case 1:
		return verdict(PartMissing, "Nobody has told the count of %s, which counts as 0.", missing[0])
	}
	return verdict(PartMissing, "Nobody has told the counts of %s, which count as 0.", both(missing))
}

// removedBeside notes the device that was removed last, beside those that are right.
func removedBeside(f *Facts) *Verdict {
	gone := slices.DeleteFunc(slices.Clone(f.Report.GetRemoved()), func(r *pb.SubscriptionReport) bool {
		return slices.ContainsFunc(f.devices(), func(d *device) bool { return d.app == r.GetApp() && d.token == r.GetDeviceToken() })
	})
	if len(gone) == 0 {
		return nil
	}
	last, more := gone[0], ""
	if n := len(gone) - 1; n > 0 {
		more = fmt.Sprintf(", and %d more before it", n)
	}
	return verdict(DeviceRemoved, "Another device, %s, was removed %s%s: %s. It is back when the app registers again.",
		Short(last.GetDeviceToken()), f.since(last.GetRemovedAt()), more, removalReason(last.GetRemovalReason()))
}
