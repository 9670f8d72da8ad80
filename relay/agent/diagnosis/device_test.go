package diagnosis

import (
	"testing"
	"time"

	pb "badgerelay/proto/badgerelay/v1"
)

// TestWhyADeviceWaits has a device wait for a time: who asked for it follows from what was
// answered.
func TestWhyADeviceWaits(t *testing.T) {
	wait := func(w pb.Wait, reason string) func(*Facts) {
		return func(f *Facts) {
			f.Operator = true
			d := waits(f, w, 5*time.Minute)
			d.Reason, d.RefusedAt = reason, ago(time.Minute)
		}
	}
	const something = "Something on the way to APNs, such as a proxy or a portal, answers in its place"
	wantTold(t, []told{
		{DevicePaused, "", "APNs asked for a pause of the device (TooManyRequests at 14:29:00Z): 4 goes at 14:35:00Z.", "", wait(pb.Wait_WAIT_PAUSE, "TooManyRequests")},
		{DevicePaused, "", "APNs answered nine counts with errors within 15 minutes (ServiceUnavailable at 14:29:00Z), so every count waits: 4 goes to the device at 14:35:00Z.", "asked",
			wait(pb.Wait_WAIT_PAUSE, "ServiceUnavailable")},
		{DevicePaused, "", "APNs refused the last push to the device (ImATeapot at 14:29:00Z), so every count waits: 4 goes at 14:35:00Z.", "asked", wait(pb.Wait_WAIT_PAUSE, "ImATeapot")},
		{ForeignAnswer, "", something + " (ForeignAnswer at 14:29:00Z): 4 goes to the device at 14:35:00Z. The relay's log has the beginning of what it says.", "asked", wait(pb.Wait_WAIT_PAUSE, "ForeignAnswer")},
		{ForeignAnswer, "", something + " (HTTP502", "APNs answered", wait(pb.Wait_WAIT_RETRY, "HTTP502")},
		{ForeignAnswer, "", "Tell the relay's operator", "log", func(f *Facts) { wait(pb.Wait_WAIT_PAUSE, "ForeignAnswer")(f); f.Operator = false }},
		{CountBlocked, "", "the same count goes again at 14:35:00Z, another one at once, as long as it is one of eight within 15 minutes.", "", wait(pb.Wait_WAIT_RETRY, "ServiceUnavailable")},

		{NotShown, "", "APNs refused the last push to the device, PayloadTooLarge at 14:29:00Z, and nobody knows what it shows.", "nothing was pushed", func(f *Facts) {
			d := f.Report.Relays[0].GetDevices()[0]
			d.Badge, d.AcceptedAt, d.Reason, d.RefusedAt = nil, nil, "PayloadTooLarge", ago(time.Minute)
		}},
		{NotShown, "", "APNs refused the last push to it, or nothing was pushed since it registered or since the relay started.", "", func(f *Facts) { // as an agent is told
			d := f.Report.Relays[0].GetDevices()[0]
			d.Badge, d.AcceptedAt = nil, nil
		}},
	})
}

// TestAWaitThatIsKnownBeatsTheSum has two relays have a shared device: one pushes it and
// waits, the other one waits for that. Agents are not told which is which.
func TestAWaitThatIsKnownBeatsTheSum(t *testing.T) {
	for _, first := range []int{0, 1} {
		wantTold(t, []told{{DevicePaused, "", "TooManyRequests", "", func(f *Facts) {
			shared(f, &pb.PartReport{UnreadCount: badge(2)})
			waits(f, pb.Wait_WAIT_SUM, 0)
			another(f, "up").Devices = []*pb.DeviceReport{{
				App: "mail", DeviceToken: "aa", Shared: true, Wanted: badge(6), Wait: pb.Wait_WAIT_PAUSE, Reason: "TooManyRequests",
			}}
			r := f.Report.Relays
			r[0], r[1] = r[first], r[1-first]
		}}})
	}
}
