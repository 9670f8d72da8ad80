package apns_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"badgerelay/apns"
	"badgerelay/apns/apnstest"
)

// simulation is a simulator and a pool of one engine that talks to it.
type simulation struct {
	*fixture
	sim    *apnstest.Simulator
	engine apns.Engine
	token  *apns.TokenSource // nil with a certificate
}

// testAuthority signs the simulators' certificates.
var testAuthority = sync.OnceValue(func() *apnstest.Authority {
	a, err := apnstest.NewAuthority()
	if err != nil {
		panic(err)
	}
	return a
})

func newSimulator(tb testing.TB, c apnstest.Config) *apnstest.Simulator {
	tb.Helper()
	c.TeamKeys = append(c.TeamKeys, apnstest.TeamKey{TeamID: testTeam, KeyID: testKeyID, Key: &testKeys().key.PublicKey})
	c.Authority = testAuthority()
	c.Hosts = append(c.Hosts, "push.example")
	c.AcceptUnknownDevices = true
	if c.StreamLimit == 0 {
		c.StreamLimit = 100
	}
	sim, err := apnstest.New(c)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(sim.Close)
	return sim
}

// conform runs a case in fake time, once for each engine.
func conform(t *testing.T, sc apnstest.Config, pc apns.Config, f func(t *testing.T, s *simulation)) {
	t.Helper()
	testKeys()
	testAuthority()
	for _, engine := range []apns.Engine{apns.EngineNative, apns.EngineReference} {
		t.Run(string(engine), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				sim := newSimulator(t, sc)
				pc := pc
				pc.Engine = engine
				pc.RootCAs = testAuthority().Pool()
				if pc.Dial == nil {
					pc.Dial = sim.Dial
				}
				if pc.Token == nil && pc.Certificate == nil {
					pc.Token = newTokenSource(t)
				}
				f(t, &simulation{startPool(t, pc), sim, engine, pc.Token})
			})
		})
	}
}

// settle lets everything happen that a second brings.
func settle() {
	time.Sleep(time.Second)
	synctest.Wait()
}

func (s *simulation) want(tb testing.TB, want map[apns.Reason]int) {
	tb.Helper()
	got := reasons(s.reset())
	for r, n := range want {
		if got[r] != n {
			tb.Errorf("%d results %q, want %d; all: %v", got[r], r, n, got)
		}
	}
	if len(got) != len(want) {
		tb.Errorf("results %v, want %v", got, want)
	}
}

func TestConformAccepted(t *testing.T) {
	conform(t, apnstest.Config{}, apns.Config{}, func(t *testing.T, s *simulation) {
		start := time.Now()
		s.put(0, 500)
		settle()
		results := s.reset()
		if len(results) != 500 {
			t.Fatalf("%d of 500 results", len(results))
		}
		for _, r := range results {
			if r.Err != nil || r.WrittenAt.Before(start) {
				t.Fatalf("result %+v", r)
			}
		}
		for i := range 500 {
			if d, ok := s.sim.Device(device(i)); !ok || d.Badge != uint32(i) {
				t.Fatalf("device %d shows %d, %t", i, d.Badge, ok)
			}
		}
		for fault, n := range s.sim.ClientFaults() {
			if n != 0 && s.engine == apns.EngineNative {
				t.Errorf("the simulator counts %d of fault %s", n, fault)
			}
		}
	})
}

// TestConformVerdicts takes every refusal that Apple's page names through both
// engines.
func TestConformVerdicts(t *testing.T) {
	at := time.Date(1999, 12, 24, 1, 2, 3, 0, time.UTC)
	for _, test := range []struct {
		status  int
		reason  apns.Reason
		verdict apns.Verdict
	}{
		{400, "BadCollapseId", apns.VerdictDrop},
		{400, "BadDeviceToken", apns.VerdictDeviceRefused},
		{400, "BadExpirationDate", apns.VerdictDrop},
		{400, "BadMessageId", apns.VerdictDrop},
		{400, "BadPriority", apns.VerdictDrop},
		{400, "BadTopic", apns.VerdictStopApp},
		{400, "DeviceTokenNotForTopic", apns.VerdictDeviceRefused},
		{400, "DuplicateHeaders", apns.VerdictDrop},
		{400, "IdleTimeout", apns.VerdictResend},
		{400, "InvalidPushType", apns.VerdictDrop},
		{400, "MissingDeviceToken", apns.VerdictDrop},
		{400, "MissingTopic", apns.VerdictStopApp},
		{400, "PayloadEmpty", apns.VerdictDrop},
		{400, "TopicDisallowed", apns.VerdictStopApp},
		{403, "BadCertificate", apns.VerdictStopApp},
		{403, "BadCertificateEnvironment", apns.VerdictStopApp},
		{403, "ExpiredProviderToken", apns.VerdictResend},
		{403, "Forbidden", apns.VerdictStopApp},
		{403, "InvalidProviderToken", apns.VerdictStopApp},
		{403, "MissingProviderToken", apns.VerdictStopApp},
		{403, "UnrelatedKeyIdInToken", apns.VerdictResend},
		{403, "BadEnvironmentKeyIdInToken", apns.VerdictStopApp},
		{404, "BadPath", apns.VerdictDrop},
		{405, "MethodNotAllowed", apns.VerdictDrop},
		{410, "ExpiredToken", apns.VerdictDeviceGone},
		{410, "Unregistered", apns.VerdictDeviceGone},
		{413, "PayloadTooLarge", apns.VerdictDrop},
		{429, "TooManyProviderTokenUpdates", apns.VerdictResend},
		{429, "TooManyRequests", apns.VerdictPauseDevice},
		{500, "InternalServerError", apns.VerdictRetryLater},
		{503, "ServiceUnavailable", apns.VerdictRetryLater},
		{503, "Shutdown", apns.VerdictRetryLater},
		{400, "SomethingNew", apns.VerdictUnknown},
		{410, "SomethingNew", apns.VerdictUnknown},
		{403, "SomethingNew", apns.VerdictStopApp},
		{429, "SomethingNew", apns.VerdictPauseDevice},
		{502, "SomethingNew", apns.VerdictRetryLater},
		{404, "", apns.VerdictUnknown}, // no body: not APNs' answer
		{410, "", apns.VerdictUnknown},
		{401, "not a reason", apns.VerdictUnknown},
	} {
		t.Run(fmt.Sprint(test.status, test.reason), func(t *testing.T) {
			conform(t, apnstest.Config{}, apns.Config{}, func(t *testing.T, s *simulation) {
				s.put(0, 1)
				settle()
				s.want(t, map[apns.Reason]int{"": 1})
				answer := apnstest.Answer{Status: test.status, Reason: test.reason}
				if test.status == 410 {
					answer.Timestamp = at
				}
				s.sim.NextFor(device(1), answer)
				s.put(1, 1)
				settle()
				got := s.reset()
				if len(got) != 1 || got[0].Err == nil {
					t.Fatalf("results %v", got)
				}
				e := got[0].Err
				want := test.reason
				if test.verdict == apns.VerdictUnknown && want != "SomethingNew" {
					want = apns.ReasonForeignAnswer
				}
				if e.Status != test.status || e.Reason != want || e.Verdict() != test.verdict || e.ID == "" {
					t.Errorf("refusal %+v, verdict %v, want %v", e, e.Verdict(), test.verdict)
				}
				if test.status == 410 && want == test.reason && !e.Timestamp.Equal(at) {
					t.Errorf("timestamp %v, want %v", e.Timestamp, at)
				}
				stats := s.pool.Stats()
				if refused := stats.State == apns.StateRefused; refused != (test.verdict == apns.VerdictStopApp) &&
					test.reason != apns.ReasonExpiredProviderToken {
					t.Errorf("state %v, refused as %q", stats.State, stats.Refused)
				}
			})
		})
	}
}

func TestConformDrain(t *testing.T) {
	slow := apnstest.Faults{Latency: apnstest.Latency{Min: 2 * time.Second}}
	conform(t, apnstest.Config{}, apns.Config{DrainTimeout: 5 * time.Second}, func(t *testing.T, s *simulation) {
		s.put(0, 1)
		settle()
		if err := s.sim.SetFaults(slow); err != nil {
			t.Fatal(err)
		}
		s.put(1, 20)
		settle()
		start := time.Now()
		s.put(100, 500)
		s.stop()
		if took := time.Since(start); took > 3*time.Second {
			t.Errorf("the drain took %s", took)
		}
		got := reasons(s.reset())
		delete(got, apns.ReasonNotSent) // taken by a connection that began to leave, and never written
		if len(got) != 1 || got[""] < 21 {
			t.Errorf("results %v", got)
		}
	})
}

func TestConformDrainTimeout(t *testing.T) {
	stuck := apnstest.Faults{Latency: apnstest.Latency{Min: time.Hour}}
	conform(t, apnstest.Config{}, apns.Config{DrainTimeout: 5 * time.Second, AnswerTimeout: time.Minute}, func(t *testing.T, s *simulation) {
		s.put(0, 1)
		settle()
		if err := s.sim.SetFaults(stuck); err != nil {
			t.Fatal(err)
		}
		s.put(1, 20)
		settle()
		start := time.Now()
		s.stop()
		if took := time.Since(start); took < 4*time.Second || took > 11*time.Second {
			t.Errorf("the drain took %s, want its timeout", took)
		}
		got := s.reset()
		if len(got) != 21 {
			t.Errorf("%d of 21 results", len(got))
		}
		for _, r := range got {
			if r.Err != nil && r.Err.Verdict() != apns.VerdictResend {
				t.Errorf("result %v", r.Err)
			}
		}
	})
}

func TestConformPush(t *testing.T) {
	conform(t, apnstest.Config{}, apns.Config{}, func(t *testing.T, s *simulation) {
		s.put(0, 100)
		id, err := s.pool.Push(t.Context(), apns.Request{Device: device(1000), Badge: 3, Priority: apns.PriorityImmediate})
		if err != nil || len(id) != 36 {
			t.Errorf("Push returned %q, %v", id, err)
		}
		s.sim.NextFor(device(1001), apnstest.Answer{Status: 400, Reason: apns.ReasonBadDeviceToken})
		id, err = s.pool.Push(t.Context(), apns.Request{Device: device(1001), Badge: 3, Priority: apns.PriorityImmediate})
		var refusal *apns.Error
		if !errors.As(err, &refusal) || refusal.Reason != apns.ReasonBadDeviceToken || id == "" {
			t.Errorf("Push returned %q, %v", id, err)
		}
		settle()
		s.want(t, map[apns.Reason]int{"": 100})
		s.stop()
		if _, err := s.pool.Push(t.Context(), apns.Request{Device: device(1)}); !errors.Is(err, apns.ErrClosed) {
			t.Errorf("Push after the end returned %v", err)
		}
	})
}

func TestConformInvalidRequests(t *testing.T) {
	conform(t, apnstest.Config{}, apns.Config{}, func(t *testing.T, s *simulation) {
		s.source.mu.Lock()
		s.source.queue = []apns.Request{
			{Tag: "no device"},
			{Tag: "good", Device: device(1), Priority: apns.PriorityPower},
			{Tag: "too large", Device: device(2), Badge: apns.MaxBadge + 1},
		}
		s.source.mu.Unlock()
		s.pool.Wake()
		settle()
		s.want(t, map[apns.Reason]int{"": 1, apns.ReasonInvalidRequest: 2})
	})
}
