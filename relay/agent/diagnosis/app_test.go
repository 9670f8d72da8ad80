package diagnosis

import (
	"testing"
	"time"

	pb "badgerelay/proto/badgerelay/v1"
)

// another adds a relay that has the app in a state, and neither the count nor the device.
func another(f *Facts, state string) *pb.RelayReport {
	r := &pb.RelayReport{Name: "r2", StartedAt: ago(time.Hour), Apps: []*pb.AppReport{{Name: "mail", State: state, Reason: "InvalidProviderToken"}}}
	f.Report.Relays = append(f.Report.Relays, r)
	return r
}

// TestTheRelayThatPushes has the app fare otherwise at another relay than at the one that
// has the count.
func TestTheRelayThatPushes(t *testing.T) {
	bad := map[string]Code{"refused": AppRefused, "outage": APNsUnreachable, "misconfigured": AppMisconfigured}
	for state, code := range bad {
		wantTold(t, []told{
			{DevicePaused, "", "TooManyRequests", "", func(f *Facts) {
				waits(f, pb.Wait_WAIT_PAUSE, time.Minute).Reason = "TooManyRequests"
				another(f, state)
			}},
			{CountBlocked, "", "ServiceUnavailable", "", func(f *Facts) {
				waits(f, pb.Wait_WAIT_RETRY, time.Minute).Reason = "ServiceUnavailable"
				another(f, state)
			}},
			{WaitingForAnswer, "", "has no answer yet", "", func(f *Facts) { waits(f, pb.Wait_WAIT_ANSWER, 0); another(f, state) }},
			{NotShown, "", "4 is the newest count", "", func(f *Facts) { f.Report.Relays[0].Count.UnreadCount = 4; another(f, state) }},
			{DeviceRefused, "", "APNs refuses the device since", "", func(f *Facts) {
				f.Report.Subscriptions[0].HeldReason = "BadDeviceToken"
				if state != "misconfigured" { // else it is told of the device
					another(f, state)
				}
			}},
			{code, "", "relay r1", "relay r2", func(f *Facts) { // as it is where the count is
				waits(f, pb.Wait_WAIT_STREAM, 0)
				f.Report.Relays[0].Apps[0].State = state
				another(f, "up")
			}},
			{code, "", "", "relay r1", func(f *Facts) { // of one there is no need to say which
				waits(f, pb.Wait_WAIT_STREAM, 0)
				f.Report.Relays[0].Apps[0].State = state
			}},
			{code, "", "relay r2", "", func(f *Facts) { // which pushes the sum
				shared(f, &pb.PartReport{UnreadCount: badge(2)})
				waits(f, pb.Wait_WAIT_SUM, 0)
				another(f, state).Devices = []*pb.DeviceReport{{App: "mail", DeviceToken: "aa", Wait: pb.Wait_WAIT_STREAM, Shared: true, Pusher: true}}
			}},
		})
	}
	wantTold(t, []told{
		{AppUnknown, "", `the app "mail", which relay r1, where the count is, does not have`, "nothing was pushed", func(f *Facts) {
			another(f, "up")
			r := f.Report.Relays[0]
			r.Apps, r.Devices = nil, nil
		}},
		{Right, "", "3 on its device", "", func(f *Facts) { another(f, "up").Apps = nil }},
		{AppMisconfigured, "", "relay r2", "", func(f *Facts) { // no relay has a count, and this one knows
			f.Report.Relays[0].Count = nil
			f.Report.Subscriptions[0].HeldReason = "BadDeviceToken"
			another(f, "misconfigured")
		}},
		{Right, "", "3 on its device", "", func(f *Facts) { // of two old counts the one of the agent's relay is the newer
			r := f.Report.Relays[0]
			f.Report.Relays = append([]*pb.RelayReport{{Name: "r0", StartedAt: ago(time.Hour), Apps: r.GetApps(), Count: &pb.CountReport{UnreadCount: 9, AgentId: "mx1"}}}, r)
			r.Count.ReceivedAt = nil
		}},
	})
}

// TestWhatToCorrect has APNs refuse the app: the next step is the one that its reason asks
// for.
func TestWhatToCorrect(t *testing.T) {
	refused := func(reason string) func(*Facts) {
		return func(f *Facts) {
			f.Operator = true
			waits(f, pb.Wait_WAIT_BREAKER, 0)
			f.Report.Relays[0].Apps[0] = &pb.AppReport{Name: "mail", State: "refused", Reason: reason}
		}
	}
	wantTold(t, []told{
		{AppRefused, "", "the relay's clock is wrong: set it right, and pushes go on by themselves", "key_file", refused("ExpiredProviderToken")},
		{AppRefused, "", "See apps[].token.key_file, key_id and team_id, and reload with SIGHUP; if the key was good before, the relay's clock is wrong", "", refused("InvalidProviderToken")},
		{AppRefused, "", "See apps[].topic, and restart the relay", "SIGHUP", refused("TopicDisallowed")},
		{AppRefused, "", "See apps[].certificate and environment; reload with SIGHUP for a new certificate, restart for the environment", "", refused("BadCertificateEnvironment")},
		{AppRefused, "", "See apps[].environment and token, and restart the relay", "", refused("BadEnvironmentKeyIdInToken")},
		{AppRefused, "", "APNs refuses the app's pushes: Forbidden. See Apple's page on responses from APNs", "key_file", refused("Forbidden")},
	})
}
