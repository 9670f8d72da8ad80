package ingest

import (
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"badgerelay/apns"
	pb "badgerelay/proto/badgerelay/v1"
	"badgerelay/relay"
)

// TestEveryOutcomeHasItsWord walks all outcomes: one that wireOutcome does not name would
// reach agents as OUTCOME_UNSPECIFIED.
func TestEveryOutcomeHasItsWord(t *testing.T) {
	for o := range relay.Outcome(relay.Outcomes + 1) {
		want := "OUTCOME_" + strings.ToUpper(o.String())
		if o == relay.OutcomeAbandoned {
			want = "OUTCOME_PENDING" // to its agent it has not settled
		}
		if got := wireOutcome(o).String(); got != want {
			t.Errorf("wireOutcome(%v) = %v, want %v", o, got, want)
		}
	}
}

// TestRefusalsAreToldApart: an agent learns of each device what follows for its subscription.
func TestRefusalsAreToldApart(t *testing.T) {
	refused := []relay.RefusedSubscription{
		{App: "mail", Reason: "Unregistered", Removed: true},
		{App: "mail", Reason: "BadDeviceToken"},
		{App: "mail", Reason: "PayloadTooLarge", Dropped: true},
	}
	got := outcomeMessages([]relay.EventOutcome{{Outcome: relay.OutcomeUndeliverable, Refused: refused}})[0]
	removed, quarantined, dropped := got.GetRemoved(), got.GetQuarantined(), got.GetDropped()
	if len(removed) != 1 || removed[0].GetReason() != "Unregistered" || len(quarantined) != 1 || quarantined[0].GetReason() != "BadDeviceToken" ||
		len(dropped) != 1 || dropped[0].GetReason() != "PayloadTooLarge" {
		t.Errorf("removed %v, quarantined %v, dropped %v", removed, quarantined, dropped)
	}
}

// TestRefusalsFitIntoAMessage has a mailbox with very many devices, all of which APNs
// refuses: clients of gRPC take 4 MiB.
func TestRefusalsFitIntoAMessage(t *testing.T) {
	device, err := apns.DeviceTokenFromBytes(strings.Repeat("x", 100))
	if err != nil {
		t.Fatal(err)
	}
	refused := slices.Repeat([]relay.RefusedSubscription{{App: strings.Repeat("a", 64), Device: device, Reason: "Unregistered"}}, 30_000)
	outcomes := []relay.EventOutcome{
		{Sequence: 1, Outcome: relay.OutcomeUndeliverable, Detail: "APNs refuses it", Refused: refused},
		{Sequence: 2, Outcome: relay.OutcomeUndeliverable, Detail: "APNs refuses it", Refused: refused[:3]},
	}
	parts := settlements(relay.Settlement{Through: 2, Outcomes: outcomes})
	if len(parts) != 2 {
		t.Fatalf("%d messages, want 2", len(parts))
	}
	for i, want := range []string{"APNs refuses it; refused devices that are not named: 25000", "APNs refuses it"} {
		got := parts[i].GetSettlement().GetOutcomes()[0]
		if size := proto.Size(parts[i]); got.GetDetail() != want || size > 2<<20 {
			t.Errorf("message %d has %d bytes and says %q, want %q", i, size, got.GetDetail(), want)
		}
	}
	if size := proto.Size(&pb.PublishResponse{Outcomes: outcomeMessages(slices.Repeat(outcomes, 100))}); size > 2<<20 {
		t.Errorf("the answer to a call has %d bytes", size)
	}
}

// TestSettlementsSplit cuts random settlements and sees that the parts, read
// as an agent reads them, say what the whole did.
func TestSettlementsSplit(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 10 {
		whole := randomSettlement(random)
		parts := settlements(whole)
		if len(parts) < 2 {
			t.Fatalf("%d outcomes in %d messages, want more", len(whole.Outcomes), len(parts))
		}
		want := readSettlement(settlementMessage(whole).GetSettlement(), 0)
		got, through := map[uint64]pb.Outcome{}, uint64(0)
		for _, part := range parts {
			s := part.GetSettlement()
			if size := proto.Size(part); size > 2*maxOutcomeBytes {
				t.Errorf("a message has %d bytes", size)
			}
			for sequence, outcome := range readSettlement(s, through) {
				if _, twice := got[sequence]; twice {
					t.Fatalf("event %d is in two settlements", sequence)
				}
				got[sequence] = outcome
			}
			through = s.GetThrough()
		}
		if !maps.Equal(got, want) {
			t.Fatalf("the parts settle %d events, the whole %d, or others", len(got), len(want))
		}
	}
}

// readSettlement returns the outcome of each newly settled event.
func readSettlement(s *pb.Settlement, through uint64) map[uint64]pb.Outcome {
	settled := map[uint64]pb.Outcome{}
	for i := through + 1; i <= s.GetThrough(); i++ {
		settled[i] = pb.Outcome_OUTCOME_DELIVERED
	}
	for _, r := range s.GetRanges() {
		for i := r.GetFirst(); i <= r.GetLast(); i++ {
			settled[i] = pb.Outcome_OUTCOME_DELIVERED
		}
	}
	for _, o := range s.GetOutcomes() {
		settled[o.GetSequence()] = o.GetOutcome()
	}
	return settled
}

func randomSettlement(random *rand.Rand) relay.Settlement {
	s := relay.Settlement{Through: random.Uint64N(4000)}
	detail := strings.Repeat("d", 1000)
	add := func(sequence uint64) {
		if random.IntN(3) > 0 {
			s.Outcomes = append(s.Outcomes, relay.EventOutcome{Sequence: sequence, Outcome: relay.OutcomeRejected, Detail: detail})
		}
	}
	for i := uint64(1); i <= s.Through; i++ {
		add(i)
	}
	for i := s.Through + 2; i < 5000; i += 1 + random.Uint64N(3) {
		last := i + random.Uint64N(20)
		s.Ranges = append(s.Ranges, relay.Range{First: i, Last: last})
		for ; i <= last; i++ {
			add(i)
		}
	}
	return s
}
