package dispatch

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"badgerelay/apns"
)

// phones is an Owner whose devices are names. Those that begin with "idle" have
// nothing to push.
type phones struct {
	until     *apns.Deadline
	answered  []any
	meanwhile func() // called once, when the first push is started
}

func (p *phones) Begin() *apns.Deadline { return p.until }

func (p *phones) Start(device string, push *apns.Request) bool {
	if meanwhile := p.meanwhile; meanwhile != nil {
		p.meanwhile = nil
		meanwhile()
	}
	*push = apns.Request{Tag: device}
	return !strings.HasPrefix(device, "idle")
}

func (p *phones) Answered(results []apns.Result) {
	for i := range results {
		p.answered = append(p.answered, results[i].Tag)
	}
}

// script is a Queue, whose time the test sets.
type script struct {
	*testing.T
	*Queue[string]
	owner phones
	time  int64
	woken int
}

func newScript(t *testing.T) *script {
	s := &script{T: t}
	s.Queue = NewQueue(Config[string]{
		Owner: &s.owner, Logger: slog.New(slog.DiscardHandler), Now: func() int64 { return s.time },
		Random: soonest, Changed: func() {},
	})
	s.SetWake(func() { s.woken++ })
	return s
}

// want takes up to n pushes.
func (s *script) want(why string, n, more int, devices ...string) {
	s.Helper()
	requests := make([]apns.Request, n)
	n, got := s.Take(requests)
	var taken []string
	for i := range n {
		taken = append(taken, requests[i].Tag.(string))
	}
	if !slices.Equal(taken, devices) || got != more {
		s.Fatalf("took %v and %d more, want %v and %d more: %s", taken, got, devices, more, why)
	}
}

// answer answers n pushes.
func (s *script) answer(n int, err *apns.Error) {
	results := make([]apns.Result, n)
	for i := range results {
		results[i] = apns.Result{Tag: "answered", Err: err}
	}
	s.Done(results)
}

func TestQueueIsFair(t *testing.T) {
	s := newScript(t)
	for n := range 100 {
		s.Add(1, fmt.Sprint("flood", n), false, false)
	}
	s.Add(2, "b", false, false)
	s.want("half of what there is room for", 2, 99, "flood0", "b")
	s.Add(2, "resent", false, false)
	s.Add(2, "first", true, false)
	s.want("what is sent again comes first", 4, 97, "flood1", "flood2", "first", "resent")
}

// TestQueueOfSeveralOrganizations has a device wait for two of them.
func TestQueueOfSeveralOrganizations(t *testing.T) {
	s := newScript(t)
	for n := range 100 {
		s.Add(1, fmt.Sprint("flood", n), false, false)
	}
	for range 3 {
		s.Add(1, "shared", false, true)
		s.Add(2, "shared", false, true)
	}
	s.want("it does not wait for the first one's", 2, 100, "flood0", "shared")
	s.Add(2, "shared", true, true)
	s.want("it has been taken, and comes again", 2, 99, "flood1", "shared")
}

func TestQueuePassesOverDevicesThatHaveNothingToPush(t *testing.T) {
	s := newScript(t)
	for n := range 2*takeAtOnce + 1 {
		s.Add(1, fmt.Sprint("idle", n), false, false)
	}
	s.Add(1, "a", false, false)
	s.Add(1, "b", false, false)
	s.want("others take their place", 2, 0, "a", "b")
	if got := s.State().Waiting; got != 0 {
		t.Errorf("%d wait, want none", got)
	}
}

func TestQueueDeadlineIsTheOwners(t *testing.T) {
	s := newScript(t)
	s.owner.until = apns.DeadlineIn(time.Second)
	s.Add(1, "a", false, false)
	requests := make([]apns.Request, 1)
	if n, _ := s.Take(requests); n != 1 || requests[0].Deadline != s.owner.until {
		t.Errorf("%d pushes, deadline %v, want %v", n, requests[0].Deadline, s.owner.until)
	}
}

// TestQueueInAnOutage opens the breaker with a device in the queue that has nothing
// to push: that is no probe.
func TestQueueInAnOutage(t *testing.T) {
	s := newScript(t)
	s.Add(1, "idle", false, false)
	s.Add(1, "a", false, false)
	s.Add(1, "b", false, false)
	s.answer(breakerThreshold, &apns.Error{Status: 503, Reason: "ServiceUnavailable"})
	if !s.State().BreakerOpen || len(s.owner.answered) != breakerThreshold {
		t.Fatalf("%+v, %d answers brought home", s.State(), len(s.owner.answered))
	}
	s.want("the breaker is open", 8, 0)
	woken := s.woken
	if next := s.Tick(s.time); next != int64(firstBreakerPause) || s.woken != woken {
		t.Errorf("the first probe is at %v, the pool was woken: %v", time.Duration(next), s.woken != woken)
	}
	s.time = int64(firstBreakerPause)
	if s.Tick(s.time); s.woken == woken {
		t.Error("the pool was not told of the probe")
	}
	s.want("the probe goes to one that has something", 8, 0, "a")
	s.answer(1, nil)
	s.want("each accepted push lets two go", 8, 0, "b")
}

// TestQueueGivesNothingBackToABreakerThatOpened has an outage begin while devices are
// started that have nothing to push.
func TestQueueGivesNothingBackToABreakerThatOpened(t *testing.T) {
	s := newScript(t)
	for i := range takeAtOnce {
		s.Add(1, fmt.Sprint("idle", i), false, false)
	}
	s.Add(1, "a", false, false)
	s.owner.meanwhile = func() { s.answer(breakerThreshold, &apns.Error{Status: 503, Reason: "ServiceUnavailable"}) }
	s.want("the breaker is open", 10, 0)
	s.time = int64(2 * time.Second)
	s.Tick(s.time)
	s.want("one after a pause", 10, 0, "a")
}

// TestQueueLeavesARefusedAppToThePool answers what package apns throttles by itself.
func TestQueueLeavesARefusedAppToThePool(t *testing.T) {
	s := newScript(t)
	s.answer(2*breakerThreshold, &apns.Error{Status: 403, Reason: "InvalidProviderToken"})
	if s.State().BreakerOpen {
		t.Error("the breaker is open")
	}
}
