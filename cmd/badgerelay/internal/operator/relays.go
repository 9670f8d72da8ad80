package operator

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"time"

	pb "badgerelay/proto/badgerelay/v1"
)

// allRelays prints how every relay is that shares the registry.
func (t *Terminal) allRelays(ctx context.Context, admin pb.AdminServiceClient) error {
	r, err := admin.ListRelays(ctx, &pb.ListRelaysRequest{})
	return t.Answer(r, err, "", func() { t.showRelays(r) })
}

func (t *Terminal) showRelays(r *pb.ListRelaysResponse) {
	var rows [][]string
	for _, one := range r.GetRelays() {
		s := one.GetStatus()
		rows = append(rows, []string{one.GetName(), stateWord(one), cmp.Or(s.GetVersion(), "-"), when(s.GetStartedAt()), heard(one),
			fmt.Sprint(s.GetStreams()), fmt.Sprint(s.GetMailboxes()), fmt.Sprint(s.GetDevices()),
			fmt.Sprint(s.GetLedger().GetAccepted()), fmt.Sprint(s.GetLedger().GetPending()), appStates(s.GetApps())})
	}
	t.Table("RELAY STATE VERSION STARTED HEARD STREAMS MAILBOXES DEVICES ACCEPTED PENDING APPS", rows)
	for _, one := range r.GetRelays() {
		if why := one.GetStatus().GetNotReadyReason(); why != "" && one.GetState() == pb.RelayState_RELAY_STATE_NOT_READY {
			t.Say("%s is not ready: %s", one.GetName(), why)
		}
	}
	if why := r.GetRegistryError(); why != "" {
		t.Say("There may be other relays: %s", why)
	}
}

// stateWord is ready, not_ready, stopped or silent.
func stateWord(r *pb.Relay) string {
	return strings.ToLower(strings.TrimPrefix(r.GetState().String(), "RELAY_STATE_"))
}

func heard(r *pb.Relay) string {
	if r.GetHeard() == nil {
		return "now"
	}
	return r.GetHeard().AsDuration().Round(time.Second).String() + " ago"
}

// appStates is one word where all apps are in the same state.
func appStates(apps []*pb.App) string {
	var each []string
	same := true
	for _, a := range apps {
		each = append(each, a.GetName()+" "+appState(a))
		same = same && appState(a) == appState(apps[0])
	}
	if len(apps) > 0 && same {
		return appState(apps[0])
	}
	return cmp.Or(strings.Join(each, ", "), "-")
}
