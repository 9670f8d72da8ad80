package diagnosis

import (
	"testing"
	"time"

	pb "badgerelay/proto/badgerelay/v1"
)

// TestWhatIsBesideARightBadge has the badge be right, and something else on the page say
// that it may not be what people expect.
func TestWhatIsBesideARightBadge(t *testing.T) {
	removed := func(token string, at time.Duration, reason string) *pb.SubscriptionReport {
		return &pb.SubscriptionReport{App: "mail", DeviceToken: token, RemovedAt: ago(at), RemovalReason: reason}
	}
	wantTold(t, []told{
		{Right, PartMissing, "Nobody has told the count of sales@contoso.com, which counts as 0.", "", func(f *Facts) { shared(f, &pb.PartReport{}) }},
		{Right, PartMissing, "Nobody has told the counts of bob@fabrikam.com of fabrikam.com and sales@contoso.com, which count as 0.", "", func(f *Facts) {
			shared(f, &pb.PartReport{})
			d := f.Report.SharedDevices[0]
			d.Parts = append([]*pb.PartReport{{Organization: "fabrikam.com", Mailbox: "bob@fabrikam.com"}}, d.GetParts()...)
		}},
		{Right, "", "3 on its device", "Nobody", func(f *Facts) { shared(f, &pb.PartReport{Disabled: true}) }},
		{PartMissing, "", "nobody has told the count of sales@contoso.com yet", "counts as 0", func(f *Facts) {
			shared(f, &pb.PartReport{Awaited: true})
			f.Report.SharedDevices[0].Parts[0].Accepted = false
		}},

		{Right, DeviceRemoved, "Another device, 26ae784d..., was removed 8 s ago: APNs says that the app is not on it any more (410 Unregistered). It is back when the app registers again.", "before it", func(f *Facts) {
			f.Report.Removed = []*pb.SubscriptionReport{removed("26ae784d1234", 8*time.Second, "Unregistered")}
		}},
		{Right, DeviceRemoved, "and 1 more before it", "", func(f *Facts) {
			f.Report.Removed = []*pb.SubscriptionReport{removed("26ae784d1234", 8*time.Second, "Unregistered"), removed("bb", time.Hour, "Expired")}
		}},
		{Right, "", "3 on its device", "removed", func(f *Facts) { f.Report.Removed = []*pb.SubscriptionReport{removed("aa", time.Hour, "Expired")} }}, // it is back
		{DevicePaused, "", "pause", "removed", func(f *Facts) {
			waits(f, pb.Wait_WAIT_PAUSE, time.Minute)
			f.Report.Removed = []*pb.SubscriptionReport{removed("bb", time.Hour, "Expired")}
		}},

		{Right, APNsUnreachable, "There is no connection to APNs for the app mail", "", func(f *Facts) { f.Report.Relays[0].Apps[0].State = "outage" }},
		{Right, "", "3 on its device", "APNs", func(f *Facts) { another(f, "refused") }},
		{Right, "no_agent part_missing device_removed", "the last one, mx1, left", "", func(f *Facts) {
			alone(f)
			shared(f, &pb.PartReport{})
			f.Report.Removed = []*pb.SubscriptionReport{removed("bb", time.Hour, "Expired")}
		}},
	})
}
