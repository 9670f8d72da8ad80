package agent

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	badgerelayv1 "badgerelay/proto/badgerelay/v1"
)

// idle returns an agent that does not run.
func idle(t testing.TB, change func(*Config)) *Agent {
	t.Helper()
	cfg := Config{Addresses: []string{"passthrough:///a"}, Plaintext: true, AgentID: "agent", Name: "agent", Token: fixedToken("token")}
	if change != nil {
		change(&cfg)
	}
	a, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestSetRefuses(t *testing.T) {
	a := idle(t, func(c *Config) { c.MaxUnsettled = 1 })
	for _, test := range []struct {
		mailbox string
		unread  uint32
		want    error
	}{
		{"", 1, ErrInvalid},
		{strings.Repeat("x", 257), 1, ErrInvalid},
		{"\xff", 1, ErrInvalid},
		{"ann", 1 << 31, ErrInvalid},
		{strings.Repeat("x", 256), 1<<31 - 1, nil},
		{"another", 1, ErrFull},
		{strings.Repeat("x", 256), 0, nil}, // a held mailbox is always taken
	} {
		if err := a.Set(test.mailbox, test.unread, 0, 0); !errors.Is(err, test.want) {
			t.Errorf("Set(%.10q, %d) = %v, want %v", test.mailbox, test.unread, err, test.want)
		}
		CheckLedger(t, a)
	}
}

// TestLaterSetIsLaterTruth takes versions that go back, as after an index was
// rebuilt.
func TestLaterSetIsLaterTruth(t *testing.T) {
	a := idle(t, nil)
	l := &inFlight{bySequence: map[uint64]*entry{}}
	for i, version := range []uint64{10, 9, 0, 99, 1} {
		if err := a.Set("ann", uint32(i), 5-version%2, version); err != nil {
			t.Errorf("Set(%d, version %d) = %v", i, version, err)
		}
		CheckLedger(t, a)
		e := a.set.take(l, 1, time.Now()).GetEvents()[0]
		if e.GetUnreadCount() != uint32(i) || e.GetVersion() != version {
			t.Errorf("sent %v, want count %d of version %d", e, i, version)
		}
	}
}

// TestObservation says when the caller began to count; without it, now.
func TestObservation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := idle(t, nil)
		l := &inFlight{bySequence: map[uint64]*entry{}}
		before := time.Now().Add(-time.Minute)
		for _, test := range []struct{ said, want time.Time }{{before, before}, {time.Time{}, time.Now()}} {
			if err := a.SetEvent(Event{Mailbox: "ann", Unread: 1, ObservedAt: test.said}); err != nil {
				t.Fatal(err)
			}
			if got := a.set.take(l, 1, time.Now()).GetEvents()[0].GetObservedAt().AsTime(); !got.Equal(test.want) {
				t.Errorf("observed at %v, want %v", got, test.want)
			}
			if _, _, err := a.set.settle(l, &badgerelayv1.Settlement{Through: l.last}, time.Now()); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// TestSettlementDelay sees what an agent allows relays: nothing in a stream's first
// seconds, no more than the relay takes, and nothing while somebody waits.
func TestSettlementDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newFakeNet(t)
		a, b := network.start("a"), network.start("b")
		config := network.config("a", "b")
		config.SettlementDelay = 5 * time.Second
		h := run(t, config)
		s := a.welcome(&badgerelayv1.Welcome{MaxSettlementDelay: durationpb.New(4 * time.Second)})
		opened := time.Now()
		h.set("ann", 1)
		s.batch(1, "ann=1")
		s.settlementDelay(4 * time.Second)
		if got := time.Since(opened); got != earlyTime {
			t.Errorf("the delay began after %v, want %v", got, earlyTime)
		}
		done := make(chan error, 1)
		go func() { done <- h.a.WaitSettled(t.Context()) }()
		s.settlementDelay(0)
		s.settle(1)
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		h.set("ann", 2)
		s.settlementDelay(4 * time.Second)
		s.batch(2, "ann=2")

		s.drain(time.Minute)
		s = b.welcome(&badgerelayv1.Welcome{}) // an older relay
		time.Sleep(2 * earlyTime)
		h.set("bob", 1)
		s.batch(1, "bob=1")
	})
}

func TestWaitSettled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newFakeNet(t)
		relay := network.start("a")
		h := run(t, network.config("a"))
		if err := h.a.WaitSettled(t.Context()); err != nil {
			t.Fatalf("with nothing set: %v", err)
		}
		s := relay.welcome(&badgerelayv1.Welcome{})
		h.set("ann", 1)
		h.set("bob", 1)
		done := make(chan error, 1)
		go func() { done <- h.a.WaitSettled(t.Context()) }()
		s.batch(1, "ann=1", "bob=1")
		h.set("ann", 2) // replaces what was waited for
		h.set("eve", 1) // set after the wait began
		s.batch(3, "ann=2", "eve=1")
		synctest.Wait()
		if len(done) > 0 {
			t.Fatal("WaitSettled returned before bob had settled")
		}
		s.settlement(&badgerelayv1.Settlement{Ranges: []*badgerelayv1.SequenceRange{{First: 2, Last: 2}}})
		if len(done) != 1 {
			t.Fatal("WaitSettled did not return when bob had settled and ann was replaced")
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := h.a.WaitSettled(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("WaitSettled = %v, want the deadline", err)
		}
		if got := len(h.a.set.waiters); got != 0 {
			t.Fatalf("%d waiters left, want none", got)
		}
		CheckLedger(t, h.a)
	})
}

// TestRandomLife plays many settlements, replacements, losses and drains
// against the set alone, and checks the ledger after each.
func TestRandomLife(t *testing.T) {
	for seed := range uint64(50) {
		random := rand.New(rand.NewPCG(seed, 1))
		a := idle(t, nil)
		newest := map[string]uint32{}
		now := time.Now()
		newInFlight := func() *inFlight {
			return &inFlight{bySequence: map[uint64]*entry{}, maxInFlight: time.Duration(random.IntN(3)) * time.Second}
		}
		streams := []*inFlight{newInFlight()}
		for range 400 {
			now = now.Add(time.Duration(random.IntN(300)) * time.Millisecond)
			a.set.resendDue(now)
			at := random.IntN(len(streams))
			l := streams[at]
			switch random.IntN(8) {
			case 0, 1, 2:
				mailbox, unread := fmt.Sprint(random.IntN(20)), random.Uint32N(5)
				if err := a.Set(mailbox, unread, 0, 0); err != nil {
					t.Fatal(err)
				}
				newest[mailbox] = unread
			case 3, 4:
				a.set.take(l, 1+random.IntN(5), now)
			case 5:
				s := &badgerelayv1.Settlement{}
				if span := l.last - l.through; span > 0 {
					s.Through = l.through + random.Uint64N(span+1)
					if s.Through < l.last && random.IntN(2) == 0 {
						first := s.Through + 1 + random.Uint64N(l.last-s.Through)
						s.Ranges = []*badgerelayv1.SequenceRange{{First: first, Last: l.last}}
					}
				}
				results, _, err := a.set.settle(l, s, time.Now())
				if err != nil {
					t.Fatal(err)
				}
				for _, r := range results {
					if newest[r.Mailbox] != r.Unread {
						t.Fatalf("seed %d: settled %s=%d, but %d is newest", seed, r.Mailbox, r.Unread, newest[r.Mailbox])
					}
				}
			case 6:
				a.set.close(l)
				streams = append(streams, newInFlight())
			case 7:
				a.set.release(l, now)
				streams[at] = newInFlight()
			}
			CheckLedger(t, a)
		}
		for _, l := range streams {
			a.set.release(l, now)
		}
		if next := a.set.resendDue(now.Add(time.Hour)); !next.IsZero() {
			t.Fatalf("seed %d: the next resend is due at %v, want none", seed, next)
		}
		CheckLedger(t, a)
		last := newInFlight()
		for a.set.take(last, 1000, now) != nil {
			if got := a.set.readyCount(); got > 0 {
				t.Fatalf("seed %d: %d ready after all streams ended", seed, got)
			}
		}
		if _, _, err := a.set.settle(last, &badgerelayv1.Settlement{Through: last.last}, now); err != nil {
			t.Fatal(err)
		}
		CheckLedger(t, a)
		if n := len(a.set.entries); n > 0 {
			t.Fatalf("seed %d: %d are left", seed, n)
		}
	}
}

// TestSameCountIsObservedLater counts the same number anew, later than another agent may
// have counted the mailbox.
func TestSameCountIsObservedLater(t *testing.T) {
	a := idle(t, nil)
	first := time.Now()
	for _, at := range []time.Time{first, first.Add(20 * time.Minute)} {
		if err := a.SetEvent(Event{Mailbox: "ann", Unread: 5, ObservedAt: at}); err != nil {
			t.Fatal(err)
		}
	}
	b := a.set.take(&inFlight{bySequence: map[uint64]*entry{}}, 10, first)
	if got := b.GetEvents()[0].GetObservedAt().AsTime().Sub(first); got != 20*time.Minute {
		t.Errorf("observed %v after it was counted first, want 20m", got)
	}
	CheckLedger(t, a)
}

func TestManySetters(t *testing.T) {
	network := newFakeNet(t)
	relay := network.start("a")
	h := run(t, network.config("a"))
	s := relay.handshake(&badgerelayv1.Welcome{})
	go func() { // settles whatever comes; ends when the test's agent stops
		for {
			m, err := s.rpc.Recv()
			if err != nil {
				return
			}
			b := m.GetBatch()
			through := b.GetFirstSequence() + uint64(len(b.GetEvents())) - 1
			if s.rpc.Send(&badgerelayv1.StreamResponse{Message: &badgerelayv1.StreamResponse_Settlement{
				Settlement: &badgerelayv1.Settlement{Through: through}}}) != nil {
				return
			}
		}
	}()
	var setters sync.WaitGroup
	for g := range 4 {
		setters.Go(func() {
			for i := range 5000 {
				if err := h.a.Set(fmt.Sprint(i%100), uint32(i+g), 0, 0); err != nil {
					t.Error(err)
				}
			}
		})
	}
	setters.Wait()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := h.a.WaitSettled(ctx); err != nil {
		t.Fatal(err)
	}
	if l := h.a.Ledger(); l.Submitted != 20000 || l.Unsettled != 0 {
		t.Fatalf("ledger %+v, want 20000 submitted and nothing unsettled", l)
	}
	CheckLedger(t, h.a)
}

func TestSetAllocatesNothingForAHeldMailbox(t *testing.T) {
	if raceEnabled {
		t.Log("the race detector allocates; this run checks the ledger only")
		CheckLedger(t, idle(t, nil))
		return
	}
	a := idle(t, nil)
	var n uint32
	got := testing.AllocsPerRun(1000, func() {
		n++
		if err := a.Set("ann", n, 0, 0); err != nil {
			t.Fatal(err)
		}
	})
	if got != 0 {
		t.Errorf("%v allocations a Set, want none", got)
	}
}
