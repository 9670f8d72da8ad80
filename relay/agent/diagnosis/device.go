package diagnosis

import (
	"cmp"
	"fmt"
	"slices"

	pb "badgerelay/proto/badgerelay/v1"
)

// deviceTrouble: the count is there, and some device does not show it. The device
// that waits longest decides.
func deviceTrouble(f *Facts) *Verdict {
	count, _ := f.newest()
	var worst *Verdict
	wrong, rank := 0, 0
	devices := f.devices()
	for _, d := range devices {
		v := f.oneDevice(d, count)
		if v == nil {
			continue
		}
		wrong++
		if at := slices.Index(ranks, v.Code); worst == nil || at < rank {
			worst, rank = v, at
		}
	}
	if worst != nil && len(devices) > 1 && wrong < len(devices) {
		worst.Sentence += fmt.Sprintf(" The other %d of %d devices are right.", len(devices)-wrong, len(devices))
	}
	return worst
}

// ranks orders the verdicts on devices: first what does not go by itself.
var ranks = []Code{
	DeviceOfAnother, AppRefused, AppMisconfigured, DeviceRefused, DeviceGone, APNsUnreachable, APNsOutage, RegistryUnavailable, CountBlocked, DevicePaused,
	PartMissing, WaitingForSum, WaitingForStream, WaitingForAnswer, WaitingForWindow, WaitingForRegistry, NotShown,
}

// oneDevice returns what keeps a device from showing the count; nil: it shows it.
func (f *Facts) oneDevice(d *device, count *pb.CountReport) *Verdict {
	if d.live.GetHeldReason() != "" {
		return f.held(d)
	}
	if d.ofAnother(f) {
		return verdict(DeviceOfAnother, "%s is another organization's, which registered it first: the app shows no sum across organizations (apps[].sum_across_organizations).", d.Name(f))
	}
	if d.right(count.GetUnreadCount()) && !count.GetPending() {
		return nil
	}
	if v := f.appTrouble(d.app); v != nil && (d.waiting != nil || count.GetPending() || d.shown == nil) {
		return v
	}
	if missing := d.missingPart(f); missing != nil {
		return verdict(PartMissing, "%s shows a sum, and nobody has told the count of %s yet; it counts as nothing a minute after the device came.", d.Name(f), missing.GetMailbox())
	}
	if d.waiting != nil {
		return f.waiting(d, count)
	}
	if count.GetPending() && count.GetWait() == pb.Wait_WAIT_WINDOW {
		return verdict(WaitingForWindow, "%d waits for the end of the coalescing window, at %s at the latest.", count.GetUnreadCount(), f.clock(count.GetWaitUntil()))
	}
	if d.right(count.GetUnreadCount()) {
		return nil
	}
	if sum, accepted := d.sum(); d.shared && len(d.parts) > 0 && !accepted {
		return verdict(WaitingForSum, "%s is to show %d, the sum of %d mailboxes, which waits for the relay that pushes it.", d.Name(f), sum, len(d.parts))
	}
	if v := f.appTrouble(d.app); v != nil {
		v.Sentence += fmt.Sprintf(" The count %d has ended without being accepted by APNs; it is pushed when the agent sends it again.", count.GetUnreadCount())
		return v
	}
	shows, known := d.badge()
	if !known {
		return verdict(NotShown, "The count %d has ended, and no relay knows what %s shows: nothing was pushed since it registered, or since the relay started.", count.GetUnreadCount(), d.name(f))
	}
	return verdict(NotShown, "%s shows %d since %s, and %d is the newest count: it has ended without being accepted by APNs.", d.Name(f), shows, f.clock(d.since()), count.GetUnreadCount())
}

// allHeld reports whether APNs refuses every device of the mailbox, so that no count
// reaches one.
func (f *Facts) allHeld() bool {
	return f.Report.GetRegistryError() == "" && !slices.ContainsFunc(f.Report.GetSubscriptions(), func(s *pb.SubscriptionReport) bool { return s.GetHeldReason() == "" })
}

// held says why a device is in quarantine.
func (f *Facts) held(d *device) *Verdict {
	if a := f.app(d.app); a.GetState() == "misconfigured" {
		return f.appTrouble(d.app)
	}
	s := d.live
	switch s.GetHeldReason() {
	case "Unregistered", "ExpiredToken":
		return verdict(DeviceGone, "APNs says since %s that the app is not on %s any more (410 %s), as of a time before its last registration; it is tried again at %s, and when the app registers.",
			f.clock(s.GetHeldSince()), d.name(f), s.GetHeldReason(), f.clock(s.GetNextProbeAt()))
	}
	return verdict(DeviceRefused, "APNs refuses %s since %s: %s. It is tried again at %s, and when the app registers.%s",
		d.name(f), f.clock(s.GetHeldSince()), s.GetHeldReason(), f.clock(s.GetNextProbeAt()),
		f.step("If others are refused too, see apps[].environment and apps[].topic.", "If others are refused too, tell the relay's operator."))
}

// waiting says what the badge of a device waits for.
func (f *Facts) waiting(d *device, count *pb.CountReport) *Verdict {
	w := d.waiting
	switch w.GetWait() {
	case pb.Wait_WAIT_PAUSE:
		return verdict(DevicePaused, "APNs asked for a pause of %s (%s at %s): %d goes at %s.", d.name(f), reasonOf(w), f.clock(w.GetRefusedAt()), w.GetWanted(), f.clock(w.GetWaitUntil()))
	case pb.Wait_WAIT_RETRY:
		return verdict(CountBlocked, "APNs answered %s to %d for %s at %s: the same count goes again at %s, another one at once.", reasonOf(w), w.GetWanted(), d.name(f), f.clock(w.GetRefusedAt()), f.clock(w.GetWaitUntil()))
	case pb.Wait_WAIT_BREAKER:
		return verdict(APNsOutage, "APNs fails, so pushes of the app %s go one by one: %d waits for its turn.", d.app, w.GetWanted())
	case pb.Wait_WAIT_STREAM:
		return verdict(WaitingForStream, "%d waits for a free stream to APNs.", w.GetWanted())
	case pb.Wait_WAIT_ANSWER:
		return verdict(WaitingForAnswer, "%d is on its way to APNs, and has no answer yet.", w.GetWanted())
	case pb.Wait_WAIT_WINDOW:
		return verdict(WaitingForWindow, "%d waits for the end of the coalescing window, at %s.", w.GetWanted(), f.clock(w.GetWaitUntil()))
	case pb.Wait_WAIT_SUM:
		if f.Report.GetRegistryError() != "" {
			return verdict(RegistryUnavailable, "%s shows a sum, which waits for the relay's registry: %s.%s", d.Name(f), f.Report.GetRegistryError(), f.mendRegistry())
		}
		return verdict(WaitingForSum, "%s shows a sum, which waits for the registry or for the relay that pushes it.", d.Name(f))
	case pb.Wait_WAIT_QUARANTINE:
		return verdict(DeviceRefused, "APNs refuses %s. It is tried again at %s, and when the app registers.", d.name(f), f.clock(w.GetWaitUntil()))
	case pb.Wait_WAIT_SUBSCRIPTIONS:
		return verdict(WaitingForRegistry, "APNs refused %s, and the registry decides what becomes of it.", d.name(f))
	}
	return verdict(NotShown, "%d waits for %s.", count.GetUnreadCount(), d.name(f))
}

func reasonOf(d *pb.DeviceReport) string { return cmp.Or(d.GetReason(), "no reason is known") }

// name is how a device is called in a sentence, and Name at its beginning.
func (d *device) name(f *Facts) string {
	if len(f.devices()) == 1 {
		return "the device"
	}
	return "the device " + Short(d.token)
}

func (d *device) Name(f *Facts) string { return "T" + d.name(f)[1:] }
