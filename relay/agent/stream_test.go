package agent

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	badgerelayv1 "badgerelay/proto/badgerelay/v1"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"
)

// TestHarness shows how the harness is used: do, want, do, want.
func TestHarness(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newFakeNet(t)
		relay := network.start("a")
		h := run(t, network.config("a"))
		s := relay.welcome(&badgerelayv1.Welcome{Instance: "one"})
		h.set("ann", 7)
		s.batch(1, "ann=7")
		s.settle(1)
		h.want("ann=7 delivered")
	})
}

func TestGathersBatchAndHoldsNewestOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newFakeNet(t)
		relay := network.start("a")
		h := run(t, network.config("a"))
		s := relay.welcome(&badgerelayv1.Welcome{})
		h.set("ann", 1)
		h.set("bob", 2)
		h.set("ann", 3) // replaces in place
		s.batch(1, "ann=3", "bob=2")
		if got := h.a.Ledger(); got.Submitted != 3 || got.Replaced != 1 || got.Unsettled != 2 {
			t.Fatalf("ledger %+v, want 3 submitted, 1 replaced, 2 unsettled", got)
		}
		s.settle(2, outcome(2, badgerelayv1.Outcome_OUTCOME_NO_SUBSCRIPTION))
		h.want("ann=3 delivered", "bob=2 no_subscription")
	})
}

func TestFlushDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newFakeNet(t)
		relay := network.start("a")
		cfg := network.config("a")
		cfg.FlushDelay = time.Second
		h := run(t, cfg)
		s := relay.welcome(&badgerelayv1.Welcome{})
		synctest.Wait()
		h.set("ann", 1)
		began := time.Now()
		s.batch(1, "ann=1")
		if got := time.Since(began); got != time.Second {
			t.Fatalf("batch left after %v, want the flush delay of 1s", got)
		}
		h.set("bob", 1)
		synctest.Wait()
		h.a.Flush()
		began = time.Now()
		s.batch(2, "bob=1")
		if got := time.Since(began); got != 0 {
			t.Fatalf("batch left %v after Flush, want at once", got)
		}
	})
}

func TestBatchSizeOfWelcome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newFakeNet(t)
		relay := network.start("a")
		h := run(t, network.config("a"))
		for i := range 5 {
			h.set(fmt.Sprint("m", i), uint32(i))
		}
		s := relay.welcome(&badgerelayv1.Welcome{MaxBatchEvents: 2})
		s.batch(1, "m0=0", "m1=1")
		s.batch(3, "m2=2", "m3=3")
		s.batch(5, "m4=4")
		// Out of order: a range beyond, then everything.
		s.settlement(&badgerelayv1.Settlement{Through: 1, Ranges: []*badgerelayv1.SequenceRange{{First: 3, Last: 4}},
			Outcomes: []*badgerelayv1.EventOutcome{outcome(4, badgerelayv1.Outcome_OUTCOME_STALE)}})
		h.want("m0=0 delivered", "m2=2 delivered", "m3=3 stale")
		s.settle(5, outcome(2, badgerelayv1.Outcome_OUTCOME_UNCHANGED))
		h.want("m0=0 delivered", "m2=2 delivered", "m3=3 stale", "m1=1 unchanged", "m4=4 delivered")
	})
}

func TestReplacedInFlightIsNotSettledByTheOlder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newFakeNet(t)
		relay := network.start("a")
		h := run(t, network.config("a"))
		s := relay.welcome(&badgerelayv1.Welcome{})
		h.set("ann", 1)
		s.batch(1, "ann=1")
		h.set("ann", 2)
		s.batch(2, "ann=2")
		s.settle(1, outcome(1, badgerelayv1.Outcome_OUTCOME_SUPERSEDED))
		h.want() // the newer one is still out
		if got := h.a.Ledger().Unsettled; got != 1 {
			t.Fatalf("unsettled %d, want 1: sequence 1 was replaced", got)
		}
		s.settle(2)
		h.want("ann=2 delivered")
	})
}

// TestSameCountAgain: what waits to be sent stands for the same count again. What
// is in flight does not: the relay may have settled it before the device came
// that made somebody count anew.
func TestSameCountAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newFakeNet(t)
		relay := network.start("a")
		h := run(t, network.config("a"))
		s := relay.welcome(&badgerelayv1.Welcome{})
		h.set("ann", 1)
		h.set("ann", 1)
		s.batch(1, "ann=1")
		h.set("ann", 1)
		h.set("bob", 1)
		s.batch(2, "ann=1", "bob=1")
		s.settle(3)
		h.want("ann=1 delivered", "bob=1 delivered")
	})
}

func TestReplaysUnsettledOnAnotherRelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newFakeNet(t)
		a, b := network.start("a"), network.start("b")
		h := run(t, network.config("a", "b"))
		s := a.welcome(&badgerelayv1.Welcome{})
		for _, m := range []string{"ann", "bob", "eve"} {
			h.set(m, 1)
		}
		s.batch(1, "ann=1", "bob=1", "eve=1")
		s.settlement(&badgerelayv1.Settlement{Ranges: []*badgerelayv1.SequenceRange{{First: 2, Last: 2}}})
		network.stop("a") // killed
		s = b.welcome(&badgerelayv1.Welcome{})
		h.wantFailures(FailureUnavailable)
		s.batch(1, "ann=1", "eve=1")
		s.settle(2)
		h.want("bob=1 delivered", "ann=1 delivered", "eve=1 delivered")
	})
}

func TestBackoffDoublesUpToItsBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newFakeNet(t)
		cfg := network.config("a", "b")
		cfg.BackoffMin, cfg.BackoffMax = time.Second, 10*time.Second
		h := run(t, cfg)
		h.set("ann", 1)
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		h.mu.Lock()
		failures := slices.Clone(h.failures)
		h.mu.Unlock()
		want := []time.Duration{1, 2, 4, 8, 10, 10, 10}
		for i, w := range want {
			within, between := failures[2*i].Again, failures[2*i+1].Again
			if within > 250*time.Millisecond {
				t.Errorf("round %d: the second address is tried after %v, want at most 250ms", i, within)
			}
			if between < w*time.Second/2 || between > w*time.Second {
				t.Errorf("round %d: again after %v, want half to all of %v", i, between, w*time.Second)
			}
		}
		r := network.start("b")
		s := r.welcome(&badgerelayv1.Welcome{})
		s.batch(1, "ann=1")
		s.settle(1)
		h.want("ann=1 delivered")
	})
}

func TestRefusalIsRetriedSlowly(t *testing.T) {
	for _, test := range []struct {
		code   codes.Code
		reason string
		kind   FailureKind
	}{
		{codes.PermissionDenied, "ORGANIZATION_DISABLED", FailureRefused},
		{codes.FailedPrecondition, "PRODUCT_TOO_OLD", FailureRefused},
		{codes.Unimplemented, "", FailureRefused},
		{codes.InvalidArgument, "FIELD_INVALID", FailureProtocol},
	} {
		t.Run(test.code.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				network := newFakeNet(t)
				relay := network.start("a")
				h := run(t, network.config("a"))
				relay.accept().end <- refusal(test.code, test.reason)
				relay.quiet(30*time.Second-time.Millisecond, "a person must act first")
				if f := h.wantFailures(test.kind)[0]; f.Reason != test.reason || f.Again < 30*time.Second || f.Again > time.Minute {
					t.Fatalf("failure %+v, want reason %q and 30s to 1m", f, test.reason)
				}
				relay.welcome(&badgerelayv1.Welcome{})
			})
		})
	}
}

func TestBusyRelaySaysWhen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newFakeNet(t)
		relay := network.start("a")
		h := run(t, network.config("a"))
		info := protoadapt.MessageV1Of(&errdetails.RetryInfo{RetryDelay: durationpb.New(90 * time.Second)})
		relay.accept().end <- refusal(codes.ResourceExhausted, "QUOTA_EXCEEDED", info)
		relay.quiet(90*time.Second-time.Millisecond, "the relay asked for 90 s")
		h.wantFailures(FailureBusy)
		relay.welcome(&badgerelayv1.Welcome{})
	})
}

func TestWelcomeThatDoesNotCome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newFakeNet(t)
		a, b := network.start("a"), network.start("b")
		h := run(t, network.config("a", "b"))
		began := time.Now()
		a.accept()
		b.welcome(&badgerelayv1.Welcome{})
		if got := time.Since(began); got < 20*time.Second || got > 21*time.Second {
			t.Fatalf("moved on after %v, want about 20s", got)
		}
		if f := h.wantFailures(FailureUnavailable)[0]; !errors.Is(f.Err, errWelcome) {
			t.Fatalf("failure %v, want %v", f.Err, errWelcome)
		}
	})
}

func TestRelayThatBreaksTheContract(t *testing.T) {
	for name, settlement := range map[string]*badgerelayv1.Settlement{
		"through beyond what was sent": {Through: 2},
		"range beyond what was sent":   {Ranges: []*badgerelayv1.SequenceRange{{First: 1, Last: 1 << 63}}},
		"range upside down":            {Ranges: []*badgerelayv1.SequenceRange{{First: 1, Last: 0}}},
		"range from zero":              {Ranges: []*badgerelayv1.SequenceRange{{First: 0, Last: 1}}},
		"outcomes out of order":        {Through: 1, Outcomes: []*badgerelayv1.EventOutcome{{Sequence: 1}, {Sequence: 1}}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				network := newFakeNet(t)
				relay := network.start("a")
				h := run(t, network.config("a"))
				s := relay.welcome(&badgerelayv1.Welcome{})
				h.set("ann", 1)
				s.batch(1, "ann=1")
				s.settlement(settlement)
				h.wantFailures(FailureProtocol)
				relay.welcome(&badgerelayv1.Welcome{}).batch(1, "ann=1") // nothing is lost
			})
		})
	}
}

func TestSlowRelayDoesNotGrowMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newFakeNet(t)
		relay := network.start("a")
		h := run(t, network.config("a"))
		s := relay.welcome(&badgerelayv1.Welcome{})
		// The relay does not read: the stream's window fills, and what cannot be
		// sent is overwritten in place.
		mailbox := func(i int) string { return fmt.Sprintf("%0200d", i) }
		for round := range 50 {
			for i := range 200 {
				if err := h.a.Set(mailbox(i), uint32(round), 0, 0); err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(20 * time.Millisecond)
			synctest.Wait()
		}
		CheckLedger(t, h.a)
		l := h.a.Ledger()
		if l.Unsettled != 200 || l.Replaced != 200*49 {
			t.Fatalf("ledger %+v, want 200 unsettled and %d replaced", l, 200*49)
		}
		h.a.set.mu.Lock()
		if got := cap(h.a.set.ready); got > 1024 {
			t.Errorf("queue of %d slots for 200 mailboxes", got)
		}
		h.a.set.mu.Unlock()
		// It reads again: at the end each mailbox's newest count is settled.
		var sequence uint64
		for h.a.Ledger().Unsettled > 0 {
			b := s.recv().GetBatch()
			sequence = b.GetFirstSequence() + uint64(len(b.GetEvents())) - 1
			s.settle(sequence)
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		for _, r := range h.results {
			if !slices.Contains([]string{"=49 delivered"}, r[200:]) {
				t.Fatalf("settled %q, want only the newest count", r)
			}
		}
		if sequence >= 200*50 {
			t.Errorf("%d events were sent, want fewer than were set: the relay was slow", sequence)
		}
	})
}
