package load

import (
	"slices"
	"testing"
	"time"

	pb "badgerelay/proto/badgerelay/v1"
)

// testAgent has taken n events.
func testAgent(n int) *stream {
	a := &stream{config: &Config{}, ring: make([]int64, 64), next: 1, latency: newLatency(), pace: &pace{left: n}}
	a.take(n, func(int) time.Time { return time.Time{}.Add(time.Second) })
	return a
}

func (a *stream) hear(s *pb.Settlement) error { return a.settle(s, time.Time{}.Add(3*time.Second)) }

func TestSettlementsAreCountedOnce(t *testing.T) {
	a := testAgent(10)
	steps := []struct {
		s         *pb.Settlement
		unsettled int
		delivered uint64
	}{
		{&pb.Settlement{Ranges: []*pb.SequenceRange{{First: 3, Last: 4}}}, 8, 2},
		{&pb.Settlement{Through: 4}, 6, 4},
		{&pb.Settlement{Through: 5, Outcomes: []*pb.EventOutcome{{Sequence: 5, Outcome: pb.Outcome_OUTCOME_SUPERSEDED}}}, 5, 4},
		{&pb.Settlement{Through: 5, Ranges: []*pb.SequenceRange{{First: 9, Last: 10}}, Outcomes: []*pb.EventOutcome{{Sequence: 9, Outcome: pb.Outcome_OUTCOME_STALE}}}, 3, 5},
		{&pb.Settlement{Through: 10}, 0, 8},
	}
	for i, step := range steps {
		if err := a.hear(step.s); err != nil {
			t.Fatalf("step %d: %v", i, err)
		}
		if a.unsettled != step.unsettled || a.outcomes[delivered] != step.delivered {
			t.Errorf("step %d: %d unsettled and %d delivered, want %d and %d", i, a.unsettled, a.outcomes[delivered], step.unsettled, step.delivered)
		}
	}
	if n, least := a.latency.TotalCount(), a.latency.Min(); n != 8 || least < 1_990_000 || least > 2_010_000 {
		t.Errorf("%d latencies from %d us, want 8 of two seconds", n, least)
	}
}

func TestSettlementsOfWhatWasNotSentAreRefused(t *testing.T) {
	for name, s := range map[string]*pb.Settlement{
		"through": {Through: 11}, "range": {Ranges: []*pb.SequenceRange{{First: 10, Last: 11}}},
		"outcome": {Through: 10, Outcomes: []*pb.EventOutcome{{Sequence: 11, Outcome: pb.Outcome_OUTCOME_STALE}}},
	} {
		if err := testAgent(10).hear(s); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestStridesMeetEveryMailbox(t *testing.T) {
	for _, n := range []int{1, 2, 3, 10, 64, 1000} {
		seen := make([]bool, n)
		for i, at := 0, 0; i < n; i++ {
			seen[at] = true
			at = (at + stride(n)) % n
		}
		if slices.Contains(seen, false) {
			t.Errorf("a stride of %d misses some of %d", stride(n), n)
		}
	}
}
