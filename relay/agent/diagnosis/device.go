package diagnosis

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

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
	DeviceOfAnother, AppRefused, AppMisconfigured, DeviceRefused, DeviceGone, APNsUnreachable, ForeignAnswer, APNsOutage, RegistryUnavailable, CountBlocked, DevicePaused,
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
	app := f.appTrouble(f.pusher(d), d.app)
	if app != nil && (d.waiting != nil || count.GetPending() || d.shown == nil) {
		if app.Code == APNsOutage && foreign(d.waiting.GetReason()) {
			return f.foreignAnswer(d)
		}
		return app
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
	if app != nil {
		app.Sentence += fmt.Sprintf(" The count %d has ended without being accepted by APNs; it is pushed when the agent sends it again.", count.GetUnreadCount())
		return app
	}
	return f.notShown(d, count)
}

// notShown: nothing waits any more, and the device does not show the count.
func (f *Facts) notShown(d *device, count *pb.CountReport) *Verdict {
	shows, known := d.badge()
	switch {
	case !known && d.refused != nil:
		return verdict(NotShown, "The count %d has ended: APNs refused the last push to %s, %s at %s, and nobody knows what it shows. The next count is pushed again.",
			count.GetUnreadCount(), d.name(f), reasonOf(d.refused), f.clock(d.refused.GetRefusedAt()))
	case !known:
		return verdict(NotShown, "The count %d has ended, and no relay knows what %s shows: APNs refused the last push to it, or nothing was pushed since it registered or since the relay started.",
			count.GetUnreadCount(), d.name(f))
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
	if r := f.misconfigured(d); r != nil {
		return f.appTrouble(r, d.app)
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

// misconfigured returns the relay at which APNs refuses nearly every device of a device's
// app, if it is the one that pushes, or any while no relay has a count; nil: there is none.
func (f *Facts) misconfigured(d *device) *pb.RelayReport {
	at := f.pusher(d)
	for _, r := range f.Report.GetRelays() {
		if appOf(r, d.app).GetState() == "misconfigured" && (at == nil || at == r) {
			return r
		}
	}
	return nil
}

// waiting says what the badge of a device waits for.
func (f *Facts) waiting(d *device, count *pb.CountReport) *Verdict {
	w := d.waiting
	switch w.GetWait() {
	case pb.Wait_WAIT_PAUSE, pb.Wait_WAIT_RETRY:
		return f.setBack(d)
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

// setBack says why a device waits for a time after what was answered to a push.
func (f *Facts) setBack(d *device) *Verdict {
	w := d.waiting
	reason, until := reasonOf(w), f.clock(w.GetWaitUntil())
	at := reason + " at " + f.clock(w.GetRefusedAt())
	switch {
	case foreign(w.GetReason()):
		return f.foreignAnswer(d)
	case w.GetWait() == pb.Wait_WAIT_RETRY:
		return verdict(CountBlocked, "APNs answered %s to %d for %s at %s: the same count goes again at %s, another one at once, as long as it is one of eight within 15 minutes.",
			reason, w.GetWanted(), d.name(f), f.clock(w.GetRefusedAt()), until)
	case slices.Contains([]string{"InternalServerError", "ServiceUnavailable", "Shutdown"}, w.GetReason()):
		return verdict(DevicePaused, "APNs answered nine counts with errors within 15 minutes (%s), so every count waits: %d goes to %s at %s.", at, w.GetWanted(), d.name(f), until)
	case w.GetReason() == "TooManyRequests", w.GetReason() == "":
		return verdict(DevicePaused, "APNs asked for a pause of %s (%s): %d goes at %s.", d.name(f), at, w.GetWanted(), until)
	}
	return verdict(DevicePaused, "APNs refused the last push to %s (%s), so every count waits: %d goes at %s.", d.name(f), at, w.GetWanted(), until)
}

// foreign reports whether an answer has not the form of APNs': it gives a reason with each.
func foreign(reason string) bool {
	return reason == "ForeignAnswer" || strings.HasPrefix(reason, "HTTP5")
}

// foreignAnswer: something else than APNs answers.
func (f *Facts) foreignAnswer(d *device) *Verdict {
	w := d.waiting
	goes := fmt.Sprintf("%d goes to %s in its turn", w.GetWanted(), d.name(f))
	if w.GetWaitUntil() != nil {
		goes = fmt.Sprintf("%d goes to %s at %s", w.GetWanted(), d.name(f), f.clock(w.GetWaitUntil()))
	}
	return verdict(ForeignAnswer, "Something on the way to APNs, such as a proxy or a portal, answers in its place (%s at %s): %s.%s", reasonOf(w), f.clock(w.GetRefusedAt()), goes,
		f.step("The relay's log has the beginning of what it says.", tellOperator))
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
