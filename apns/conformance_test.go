package apns_test

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
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
				f(t, &simulation{startPool(t, pc), sim, engine})
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
		{400, "BadDeviceToken", apns.VerdictRemoveDevice},
		{400, "BadExpirationDate", apns.VerdictDrop},
		{400, "BadMessageId", apns.VerdictDrop},
		{400, "BadPriority", apns.VerdictDrop},
		{400, "BadTopic", apns.VerdictStopApp},
		{400, "DeviceTokenNotForTopic", apns.VerdictRemoveDevice},
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
		{410, "ExpiredToken", apns.VerdictRemoveDevice},
		{410, "Unregistered", apns.VerdictRemoveDevice},
		{413, "PayloadTooLarge", apns.VerdictDrop},
		{429, "TooManyProviderTokenUpdates", apns.VerdictResend},
		{429, "TooManyRequests", apns.VerdictPauseDevice},
		{500, "InternalServerError", apns.VerdictRetryLater},
		{503, "ServiceUnavailable", apns.VerdictRetryLater},
		{503, "Shutdown", apns.VerdictRetryLater},
		{400, "SomethingNew", apns.VerdictDrop},
		{403, "SomethingNew", apns.VerdictStopApp},
		{429, "SomethingNew", apns.VerdictPauseDevice},
		{502, "SomethingNew", apns.VerdictRetryLater},
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
				if e.Status != test.status || e.Reason != test.reason || e.Verdict() != test.verdict || e.ID == "" {
					t.Errorf("refusal %+v, verdict %v, want %v", e, e.Verdict(), test.verdict)
				}
				if test.status == 410 && !e.Timestamp.Equal(at) {
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

// TestConformFaults lets each passing fault strike in the middle of a load, and
// wants every badge on its device in the end.
func TestConformFaults(t *testing.T) {
	for _, fault := range apnstest.AllFaults() {
		switch fault {
		case apnstest.FaultServerError, apnstest.FaultUnavailable, apnstest.FaultShuttingDown, apnstest.FaultTooMany,
			apnstest.FaultDuplicateGone, apnstest.FaultOldTimestamp, apnstest.FaultWedge, apnstest.FaultTokenExpired:
			continue // answers that are not to be repeated at once
		}
		t.Run(fault.String(), func(t *testing.T) {
			conform(t, apnstest.Config{}, apns.Config{MaxConns: 3}, func(t *testing.T, s *simulation) {
				if fault == apnstest.FaultStallSocket && s.engine == apns.EngineReference {
					// http2.ClientConn holds a mutex while it writes, and fake
					// time stands still while somebody waits for a mutex.
					return
				}
				s.resend = true
				s.sim.Inject(fault, 2)
				s.put(0, 20)
				settle()
				s.sim.Inject(fault, 1)
				s.put(20, 60)
				time.Sleep(3 * time.Minute)
				synctest.Wait()
				if open, queued := s.took(); open+queued != 0 || s.accepted() != 80 {
					t.Errorf("%d of 80 accepted, %d open, %d queued; results %v, stats %+v", s.accepted(), open, queued,
						reasons(s.reset()), s.pool.Stats())
				}
				for i := range 80 {
					if d, ok := s.sim.Device(device(i)); !ok || d.Badge != uint32(i) {
						t.Fatalf("device %d shows %d, %t", i, d.Badge, ok)
					}
				}
			})
		})
	}
}

// TestConformLowRate runs a long load under the faults that the simulator has
// switched on for people.
func TestConformLowRate(t *testing.T) {
	conform(t, apnstest.Config{Faults: apnstest.LowRate(), Seed: 7}, apns.Config{MaxConns: 3}, func(t *testing.T, s *simulation) {
		s.resend = true
		for i := range 10 {
			s.put(i*100, 100)
			settle()
		}
		time.Sleep(3 * time.Minute)
		synctest.Wait()
		if open, queued := s.took(); open+queued != 0 {
			t.Errorf("%d open, %d queued; stats %+v", open, queued, s.pool.Stats())
		}
		if got := s.accepted(); got < 950 {
			t.Errorf("%d of 1000 accepted: %v", got, reasons(s.reset()))
		}
	})
}

func TestConformExpiredToken(t *testing.T) {
	conform(t, apnstest.Config{}, apns.Config{}, func(t *testing.T, s *simulation) {
		s.resend = true
		s.put(0, 1)
		settle()
		time.Sleep(30 * time.Minute)
		s.sim.NextFor(device(1), apnstest.Answer{Status: 403, Reason: apns.ReasonExpiredProviderToken})
		s.put(1, 1)
		time.Sleep(3 * time.Second)
		synctest.Wait()
		s.want(t, map[apns.Reason]int{"": 2, apns.ReasonExpiredProviderToken: 1})
		if stats := s.pool.Stats(); stats.State != apns.StateUp || stats.TokenAge > 4*time.Second || stats.Connects != 2 {
			t.Errorf("stats %+v, want a new token on a new connection", stats)
		}
		// Again within 20 minutes: no new token can be had.
		s.sim.NextFor(device(2), apnstest.Answer{Status: 403, Reason: apns.ReasonExpiredProviderToken})
		s.put(2, 1)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if stats := s.pool.Stats(); stats.State != apns.StateRefused || stats.TokenAge < 2*time.Second {
			t.Errorf("stats %+v, want the young token kept and the app refused", stats)
		}
	})
}

func TestConformRefusedApp(t *testing.T) {
	conform(t, apnstest.Config{}, apns.Config{}, func(t *testing.T, s *simulation) {
		s.sim.RemoveTeamKey(testTeam, testKeyID)
		s.resend = true
		s.put(0, 100)
		settle()
		s.want(t, map[apns.Reason]int{apns.ReasonInvalidProviderToken: 1})
		if stats := s.pool.Stats(); stats.State != apns.StateRefused || stats.Refused != apns.ReasonInvalidProviderToken {
			t.Errorf("stats %+v", stats)
		}
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if n := len(s.reset()); n < 5 || n > 20 {
			t.Errorf("%d pushes in ten minutes, want a trickle", n)
		}
		if _, queued := s.took(); queued < 80 {
			t.Errorf("%d pushes left, want most of them", queued)
		}
		s.sim.AddTeamKey(apnstest.TeamKey{TeamID: testTeam, KeyID: testKeyID, Key: &testKeys().key.PublicKey})
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if stats := s.pool.Stats(); stats.State != apns.StateUp || s.accepted() < 70 {
			t.Errorf("after the key came back: %+v, %d accepted", stats, s.accepted())
		}
	})
}

func TestConformSetCredential(t *testing.T) {
	conform(t, apnstest.Config{}, apns.Config{}, func(t *testing.T, s *simulation) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		s.put(0, 10)
		settle()
		s.sim.RemoveTeamKey(testTeam, testKeyID)
		s.sim.AddTeamKey(apnstest.TeamKey{TeamID: testTeam, KeyID: "KEY0000002", Key: &key.PublicKey})
		fresh, err := apns.NewTokenSource(apns.TokenConfig{Key: key, KeyID: "KEY0000002", TeamID: testTeam})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.pool.SetCredential(apns.Credential{Token: fresh}); err != nil {
			t.Fatal(err)
		}
		s.put(10, 10)
		settle()
		s.want(t, map[apns.Reason]int{"": 20})
		if stats := s.pool.Stats(); stats.Connects != 2 || stats.Connections != 1 {
			t.Errorf("stats %+v, want one connection in place of another", stats)
		}
	})
}

func TestConformCertificate(t *testing.T) {
	authority := testAuthority()
	cert, err := authority.ClientCertificate([]string{testTopic}, apnstest.Production)
	if err != nil {
		t.Fatal(err)
	}
	conform(t, apnstest.Config{ClientCAs: authority.Pool()}, apns.Config{Certificate: &cert}, func(t *testing.T, s *simulation) {
		s.put(0, 300)
		settle()
		s.want(t, map[apns.Reason]int{"": 300})
		if stats := s.pool.Stats(); stats.CertificateEnd.IsZero() || stats.TokenAge != 0 {
			t.Errorf("stats %+v", stats)
		}
	})
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
		if got := reasons(s.reset()); len(got) != 1 || got[""] < 21 {
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

// tunnel is an HTTP proxy in memory that leads to a simulator.
func tunnel(t *testing.T, sim *apnstest.Simulator, want string, status int) func(context.Context, string, string) (net.Conn, error) {
	var wg sync.WaitGroup
	t.Cleanup(wg.Wait)
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		if addr != "proxy.example:3128" {
			return nil, fmt.Errorf("dialed %s", addr)
		}
		client, server := net.Pipe()
		wg.Go(func() { // ends with the connection
			defer server.Close()
			r, err := http.ReadRequest(bufio.NewReader(server))
			if err != nil || r.Method != http.MethodConnect || r.Host != testServer || r.Header.Get("Proxy-Authorization") != want {
				t.Errorf("proxy got %+v, %v", r, err)
				return
			}
			fmt.Fprintf(server, "HTTP/1.1 %d X\r\n\r\n", status)
			if status != 200 {
				return
			}
			up, err := sim.Dial(ctx, network, addr)
			if err != nil {
				t.Error(err)
				return
			}
			defer up.Close()
			wg.Go(func() {
				_, _ = io.Copy(up, server)
				_ = up.Close()
			})
			_, _ = io.Copy(server, up)
		})
		return client, nil
	}
}

func TestConformProxy(t *testing.T) {
	testKeys()
	for _, engine := range []apns.Engine{apns.EngineNative, apns.EngineReference} {
		for _, status := range []int{200, 407} {
			t.Run(fmt.Sprint(engine, status), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					sim := newSimulator(t, apnstest.Config{})
					f := startPool(t, apns.Config{Engine: engine, RootCAs: testAuthority().Pool(),
						Dial:  tunnel(t, sim, "Basic dTpw", status),
						Proxy: &url.URL{Scheme: "http", Host: "proxy.example:3128", User: url.UserPassword("u", "p")}})
					f.put(0, 10)
					settle()
					if status == 200 && f.accepted() != 10 {
						t.Errorf("%d of 10 accepted; %+v", f.accepted(), f.pool.Stats())
					}
					if status != 200 && (f.accepted() != 0 || f.pool.Stats().LastError == nil) {
						t.Errorf("stats %+v", f.pool.Stats())
					}
				})
			})
		}
	}
}

func TestConformSpreadsOverAddresses(t *testing.T) {
	testKeys()
	testAuthority()
	var mu sync.Mutex // guards what follows
	dialed := make(map[string]int)
	lookups := 0
	for _, engine := range []apns.Engine{apns.EngineNative, apns.EngineReference} {
		t.Run(string(engine), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				clear(dialed)
				lookups = 0
				sim := newSimulator(t, apnstest.Config{StreamLimit: 1, Faults: apnstest.Faults{Latency: apnstest.Latency{Min: 200 * time.Millisecond}}})
				f := startPool(t, apns.Config{Engine: engine, MaxConns: 4, RootCAs: testAuthority().Pool(),
					Lookup: func(context.Context, string) ([]netip.Addr, error) {
						mu.Lock()
						defer mu.Unlock()
						lookups++
						var addrs []netip.Addr
						for i := range 4 {
							addrs = append(addrs, netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}))
						}
						return addrs, nil
					},
					Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
						mu.Lock()
						dialed[addr]++
						mu.Unlock()
						return sim.Dial(ctx, network, addr)
					}})
				f.put(0, 200)
				time.Sleep(time.Minute)
				synctest.Wait()
				mu.Lock()
				defer mu.Unlock()
				if len(dialed) != 4 || lookups != 4 || f.accepted() != 200 {
					t.Errorf("dialed %v after %d look-ups; %d accepted", dialed, lookups, f.accepted())
				}
			})
		})
	}
}
