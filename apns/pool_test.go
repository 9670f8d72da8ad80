package apns_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	pkcs12 "software.sslmate.com/src/go-pkcs12"

	"badgerelay/apns"
	"badgerelay/apns/apnstest"
)

// TestOverTCP goes through real sockets and the real resolver's path.
func TestOverTCP(t *testing.T) {
	for _, engine := range []apns.Engine{apns.EngineNative, apns.EngineReference} {
		t.Run(string(engine), func(t *testing.T) {
			sim := newSimulator(t, apnstest.Config{})
			addr := listenTCP(t, sim)
			pool, err := apns.NewPool(apns.Config{App: "mail", Topic: testTopic, Addr: addr, Engine: engine,
				Token: newTokenSource(t), RootCAs: testAuthority().Pool(), Logger: slog.New(slog.DiscardHandler)})
			if err != nil {
				t.Fatal(err)
			}
			f := runPool(t, pool, newSource(t))
			for i := range 20 {
				if _, err := pool.Push(t.Context(), apns.Request{Device: device(i), Badge: 7, Priority: apns.PriorityPower}); err != nil {
					t.Fatal(err)
				}
			}
			f.stop()
		})
	}
}

func TestConfigValidate(t *testing.T) {
	source := newTokenSource(t)
	for _, test := range []struct {
		config apns.Config
		want   []string
	}{
		{apns.Config{App: "a", Topic: "t", Token: source}, nil},
		{apns.Config{App: "a", Certificate: new(tls.Certificate)}, nil},
		{apns.Config{}, []string{"app is empty", "exactly one of token and certificate"}},
		{apns.Config{App: "a", Token: source}, []string{"topic is empty"}},
		{apns.Config{App: "a", Topic: "a b", Token: source}, []string{"not a bundle id"}},
		{apns.Config{App: "a", Topic: "t", Token: source, Addr: "x", Engine: "fast", MaxConns: -1, MaxStreams: 1e6,
			Lifetime: 1000 * time.Hour, Proxy: &url.URL{Scheme: "socks5", Host: "p"}},
			[]string{"address", "engine", "limits of connections", "max streams", "30 days", "proxy"}},
	} {
		_, err := apns.NewPool(test.config)
		if (err == nil) != (len(test.want) == 0) {
			t.Errorf("%+v: %v", test.config, err)
			continue
		}
		for _, want := range test.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("error %q does not say %q", err, want)
			}
		}
	}
}

func TestMetrics(t *testing.T) {
	reg := prometheus.NewRegistry()
	metrics, err := apns.NewMetrics(reg)
	if err != nil {
		t.Fatal(err)
	}
	conform(t, apnstest.Config{}, apns.Config{Metrics: metrics}, func(t *testing.T, s *simulation) {
		before := scrape(t, reg)
		s.put(0, 5)
		settle()
		s.sim.NextFor(device(5), apnstest.Answer{Status: 410, Reason: apns.ReasonUnregistered})
		s.sim.NextFor(device(6), apnstest.Answer{Status: 400, Reason: "SomethingNew"})
		s.put(5, 2)
		settle()
		got := scrape(t, reg)
		for name, want := range map[string]float64{
			"apns_pushes_total mail accepted":       5,
			"apns_pushes_total mail Unregistered":   1,
			"apns_pushes_total mail other":          1,
			"apns_pushes_total mail ConnectionLost": 0,
		} {
			if n := got[name] - before[name]; n != want {
				t.Errorf("%s rose by %v, want %v", name, n, want)
			}
		}
		for name, want := range map[string]float64{
			"apns_connections mail":                1,
			"apns_streams_granted mail":            100,
			"apns_pushes_in_flight mail":           0,
			"apns_state mail up":                   1,
			"apns_state mail refused":              0,
			"apns_connects_total mail ok":          1,
			"apns_connects_total mail failed":      0,
			"apns_provider_token_age_seconds mail": 2,
		} {
			if n, ok := got[name]; n != want || !ok {
				t.Errorf("%s is %v, %t, want %v", name, n, ok, want)
			}
		}
		s.stop()
		if _, ok := scrape(t, reg)["apns_connections mail"]; ok {
			t.Error("a pool that ended is still shown")
		}
	})
}

// scrape returns every value by name and label values.
func scrape(t *testing.T, reg *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	values := make(map[string]float64)
	for _, family := range families {
		for _, m := range family.GetMetric() {
			name := family.GetName()
			for _, l := range m.GetLabel() {
				name += " " + l.GetValue()
			}
			values[name] = m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return values
}

// TestLogsAreQuiet wants one line for an outage, not one an attempt, and no
// device token in any.
func TestLogsAreQuiet(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPeer(t, func(*peerConn) {})
		var log bytes.Buffer
		f := startPool(t, apns.Config{Dial: p.Dial, Logger: slog.New(slog.NewTextHandler(&log, nil))})
		f.put(0, 1)
		time.Sleep(time.Hour)
		synctest.Wait()
		f.stop()
		if n := strings.Count(log.String(), "\n"); n != 1 || !strings.Contains(log.String(), "app=mail") {
			t.Errorf("%d lines: %s", n, log.String())
		}
		if strings.Contains(log.String(), device(0).Hex()) {
			t.Error("the log shows a device token")
		}
	})
}

// TestLogSaysWhenAnOutageEnds wants its end said once, with how long it was.
func TestLogSaysWhenAnOutageEnds(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var dead atomic.Bool
		dead.Store(true)
		p := newPeer(t, func(c *peerConn) {
			if dead.Load() {
				return
			}
			c.settle(streams(1))
			for r := c.request(); r != nil; r = c.request() {
				c.ok(r)
			}
		})
		var log bytes.Buffer
		f := startPool(t, apns.Config{Dial: p.Dial, Logger: slog.New(slog.NewTextHandler(&log, nil))})
		f.put(0, 1)
		time.Sleep(10 * time.Minute)
		dead.Store(false)
		time.Sleep(2 * time.Minute)
		f.put(1, 1)
		synctest.Wait()
		f.stop()
		lines := strings.Split(strings.TrimSpace(log.String()), "\n")
		if len(lines) != 2 || !strings.Contains(lines[0], `"connection to apns failed"`) || !strings.Contains(lines[1], `"connected to apns again"`) ||
			!strings.Contains(lines[1], "failing_for=1") || !strings.Contains(lines[1], "app=mail") {
			t.Errorf("the log is\n%s", log.String())
		}
	})
}

func TestLoadCertificate(t *testing.T) {
	cert, err := testAuthority().ClientCertificate([]string{testTopic}, apnstest.Production)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	key := cert.PrivateKey.(*ecdsa.PrivateKey)
	text := append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})...)
	dir := t.TempDir()
	for _, name := range []string{"push.pem", "push.p12"} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	loaded, err := apns.LoadCertificate(filepath.Join(dir, "push.pem"), "")
	if err != nil || !bytes.Equal(loaded.Certificate[0], cert.Certificate[0]) {
		t.Errorf("load PEM: %v", err)
	}
	for name, encoder := range map[string]*pkcs12.Encoder{
		"keychain.p12": pkcs12.LegacyRC2, // what macOS and older OpenSSL write
		"openssl3.p12": pkcs12.Modern,
		"upper.P12":    pkcs12.Modern,
		"other.pfx":    pkcs12.LegacyDES,
	} {
		file := filepath.Join(dir, name)
		writeP12(t, encoder, cert, file)
		loaded, err := apns.LoadCertificate(file, "secret")
		if err != nil {
			t.Errorf("load %s: %v", name, err)
			continue
		}
		if !bytes.Equal(loaded.Certificate[0], cert.Certificate[0]) || !key.Equal(loaded.PrivateKey) || loaded.Leaf == nil {
			t.Errorf("%s holds another certificate or key", name)
		}
		if _, err := apns.LoadCertificate(file, "wrong"); err == nil || strings.Contains(err.Error(), "wrong") {
			t.Errorf("%s with a wrong password: %v", name, err)
		}
	}
	for _, name := range []string{"push.p12", "none.pem", "none.p12"} {
		if _, err := apns.LoadCertificate(filepath.Join(dir, name), ""); err == nil {
			t.Errorf("%s was loaded", name)
		}
	}
}

// writeP12 writes a certificate with its key as a PKCS #12 file.
func writeP12(t *testing.T, e *pkcs12.Encoder, cert tls.Certificate, file string) {
	t.Helper()
	leaf, err := x509.ParseCertificate(cert.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	data, err := e.Encode(cert.PrivateKey, leaf, nil, "secret")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestAppsAreIsolated refuses one app's key and wants the other untouched.
func TestAppsAreIsolated(t *testing.T) {
	testAuthority()
	bubble(t, func(t *testing.T) {
		sim := newSimulator(t, apnstest.Config{})
		config := apns.Config{Dial: sim.Dial, RootCAs: testAuthority().Pool()}
		good := startPool(t, config)
		unknown, err := apns.NewTokenSource(apns.TokenConfig{Key: testKeys().key, KeyID: "KEY0000009", TeamID: testTeam})
		if err != nil {
			t.Fatal(err)
		}
		config.Token = unknown
		bad := startPool(t, config)
		bad.put(1000, 100)
		good.put(0, 100)
		settle()
		if good.accepted() != 100 || good.pool.Stats().State != apns.StateUp {
			t.Errorf("%d of 100 accepted; %+v", good.accepted(), good.pool.Stats())
		}
		if bad.accepted() != 0 || bad.pool.Stats().State != apns.StateRefused {
			t.Errorf("the refused app: %+v", bad.pool.Stats())
		}
	})
}

// TestStalledSocketOverTCP has the peer read no more while its socket stays
// open. It takes real time: http2.ClientConn, of the reference engine, writes
// under a mutex, and a bubble's clock does not move for those.
func TestStalledSocketOverTCP(t *testing.T) {
	for _, engine := range []apns.Engine{apns.EngineNative, apns.EngineReference} {
		t.Run(string(engine), func(t *testing.T) {
			t.Parallel()
			sim := newSimulator(t, apnstest.Config{StreamLimit: 1000})
			addr := listenTCP(t, sim)
			src := newSource(t)
			src.resend = true
			pool, err := apns.NewPool(apns.Config{App: "mail", Topic: testTopic, Addr: addr, Engine: engine, MaxConns: 1,
				AnswerTimeout: 2 * time.Second, PingTimeout: time.Second, ConnectsPerSecond: 1000, Source: src,
				Token: newTokenSource(t), RootCAs: testAuthority().Pool(), Logger: slog.New(slog.DiscardHandler)})
			if err != nil {
				t.Fatal(err)
			}
			f := runPool(t, pool, src)
			f.put(0, 10)
			f.await(t, 10)
			if n := sim.Trigger(apnstest.FaultStallSocket); n != 1 {
				t.Fatalf("%d connections stall", n)
			}
			f.put(10, 2000)
			f.await(t, 2010)
			if n := pool.Stats().Connects; n < 2 {
				t.Errorf("%d connects, want a second", n)
			}
			f.stop()
		})
	}
}

// listenTCP serves sim on a loopback socket until the test ends.
func listenTCP(t *testing.T, sim *apnstest.Simulator) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() { // ends when the simulator is closed
		defer close(served)
		if err := sim.Serve(l); !errors.Is(err, apnstest.ErrClosed) {
			t.Errorf("Serve returned %v", err)
		}
	}()
	t.Cleanup(func() {
		sim.Close()
		<-served
	})
	return l.Addr().String()
}

// await waits until n pushes are accepted, for at most 30 s: results come from
// goroutines that real sockets drive, so there is nothing else to wait for.
func (f *fixture) await(t *testing.T, n int) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for f.accepted() < n {
		if time.Now().After(deadline) {
			t.Fatalf("%d of %d accepted; stats %+v", f.accepted(), n, f.pool.Stats())
		}
		time.Sleep(5 * time.Millisecond)
	}
}
