package serve

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"badgerelay/cmd/badgeagent/internal/config"
	"badgerelay/cmd/internal/configfile"
	"badgerelay/cmd/internal/process"
	"badgerelay/relay/agent/backend"
)

func TestLocalAsksForItsTokenOnTCPOnly(t *testing.T) {
	dir, err := os.MkdirTemp("", "local") // TempDir's names are too long for sockets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	token := filepath.Join(dir, "token")
	write(t, token, "first\nignored\n")
	var log bytes.Buffer
	l := newLocal(slog.New(slog.NewTextHandler(&log, nil)), prometheus.NewRegistry())
	hello := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") })
	for pattern, file := range map[string]string{"GET /with": token, "GET /without": ""} {
		if err := l.Handle(pattern, file, hello); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Handle("GET /other", filepath.Join(dir, "none"), hello); err == nil {
		t.Error("a missing token file was accepted")
	}
	socket, tcp := serveLocal(t, l, filepath.Join(dir, "s"))
	get := func(client *http.Client, address, path string, adjust func(*http.Request)) int {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+address+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if adjust != nil {
			adjust(r)
		}
		w, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer w.Body.Close()
		return w.StatusCode
	}
	bearer := func(token string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+token) }
	}
	for _, tt := range []struct {
		name   string
		client *http.Client
		path   string
		adjust func(*http.Request)
		want   int
	}{
		{"socket", socket, "/with", nil, 200},
		{"socket, no token is set", socket, "/without", nil, 200},
		{"none", tcp, "/with", nil, 401},
		{"wrong", tcp, "/with", bearer("ignored"), 401},
		{"empty", tcp, "/with", bearer(""), 401},
		{"right", tcp, "/with", bearer("first"), 200},
		{"scheme in lower case", tcp, "/with", func(r *http.Request) { r.Header.Set("Authorization", "bearer first") }, 200},
		{"another scheme", tcp, "/with", func(r *http.Request) { r.Header.Set("Authorization", "Bearers first") }, 401},
		{"basic", tcp, "/with", func(r *http.Request) { r.SetBasicAuth("anybody", "first") }, 200},
		{"no token is set", tcp, "/without", bearer(""), 401},
	} {
		if got := get(tt.client, tcpAddress(tt.client), tt.path, tt.adjust); got != tt.want {
			t.Errorf("%s: %d, want %d", tt.name, got, tt.want)
		}
	}
	answer, err := tcp.Get("http://" + tcpAddress(tcp) + "/with")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	var problem backend.Problem
	if err := json.NewDecoder(answer.Body).Decode(&problem); err != nil || answer.Header.Get("Content-Type") != "application/problem+json" || problem.Code != backend.CodeToken {
		t.Errorf("without a token: %v %+v, %v; want a problem like the others", answer.Header, problem, err)
	}
	if got := strings.Count(log.String(), "local request refused"); got != 1 {
		t.Errorf("refusals were logged %d times within a minute, want once:\n%s", got, log.String())
	}
	write(t, token, "second\n")
	if err := l.reload(); err != nil {
		t.Fatal(err)
	}
	if got := get(tcp, tcpAddress(tcp), "/with", bearer("second")); got != 200 {
		t.Errorf("after the reload: %d, want 200", got)
	}
	write(t, token, "\n")
	if err := l.reload(); err == nil {
		t.Error("an empty token was accepted")
	}
	if got := get(tcp, tcpAddress(tcp), "/with", bearer("second")); got != 200 {
		t.Errorf("after a bad reload: %d, want the token of before", got)
	}
}

// TestLocalAnswersUnknownPathsLikeOthers asks for paths that there are not.
func TestLocalAnswersUnknownPathsLikeOthers(t *testing.T) {
	l := newLocal(slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	api := backend.New(nil, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err := l.mountBackend("", api); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/", "/v1", "/v1/", "/V1/subscribe", "/v2/x", "/v1/nothing", "/v1/subscribe/"} {
		r, w := httptest.NewRequest(http.MethodGet, path, nil), httptest.NewRecorder()
		r = r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, &net.UnixAddr{Net: "unix"}))
		l.mux.ServeHTTP(w, r)
		var problem backend.Problem
		if err := json.Unmarshal(w.Body.Bytes(), &problem); err != nil || w.Code != 404 || w.Header().Get("Content-Type") != "application/problem+json" || problem.Code != backend.CodeNotFound {
			t.Errorf("%s: %d %s %v; want a problem like the others", path, w.Code, w.Body, w.Header())
		}
	}
}

func TestLocalServesItsNetworksOnly(t *testing.T) {
	token := filepath.Join(t.TempDir(), "token")
	write(t, token, "secret\n")
	for network, want := range map[string]int{"127.0.0.0/8": 200, "172.22.1.0/24": 403, "::/0": 403} {
		l := newLocal(slog.New(slog.DiscardHandler), prometheus.NewRegistry())
		if err := l.secure(config.Local{Networks: []string{network}}, &process.Certificates{}); err != nil {
			t.Fatal(err)
		}
		if err := l.Handle("/", token, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})); err != nil {
			t.Fatal(err)
		}
		for _, peer := range []string{"127.0.0.1:4", "[::ffff:127.0.0.1]:4"} {
			r, w := httptest.NewRequest(http.MethodGet, "/", nil), httptest.NewRecorder()
			r.RemoteAddr = peer
			r.Header.Set("Authorization", "Bearer secret")
			l.mux.ServeHTTP(w, r)
			if w.Code != want {
				t.Errorf("%s on %s: %d, want %d", peer, network, w.Code, want)
			}
		}
	}
	l := newLocal(slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err := l.secure(config.Local{TLS: configfile.TLS{CertificateFile: "none", KeyFile: "none"}}, &process.Certificates{}); err == nil {
		t.Error("a missing certificate was accepted")
	}
}

func TestOneBadTokenKeepsAllOfBefore(t *testing.T) {
	first, second := filepath.Join(t.TempDir(), "first"), filepath.Join(t.TempDir(), "second")
	write(t, first, "one\n")
	write(t, second, "two\n")
	l := newLocal(slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	for pattern, file := range map[string]string{"/first": first, "/second": second} {
		if err := l.Handle(pattern, file, http.NotFoundHandler()); err != nil {
			t.Fatal(err)
		}
	}
	answers := func(token string) (firstCode, secondCode int) {
		var codes []int
		for _, path := range []string{"/first", "/second"} {
			r, w := httptest.NewRequest(http.MethodGet, path, nil), httptest.NewRecorder()
			r.Header.Set("Authorization", "Bearer "+token)
			l.mux.ServeHTTP(w, r)
			codes = append(codes, w.Code)
		}
		return codes[0], codes[1]
	}
	for _, bad := range []string{first, second} { // one of them is read last
		write(t, first, "new\n")
		write(t, second, "new\n")
		write(t, bad, "\n")
		if err := l.reload(); err == nil {
			t.Error("an empty token was accepted")
		}
		if a, b := answers("new"); a != http.StatusUnauthorized || b != http.StatusUnauthorized {
			t.Errorf("after a bad reload: %d and %d with a new token, want it refused by both", a, b)
		}
		if a, b := answers("one"); a != http.StatusNotFound || b != http.StatusUnauthorized {
			t.Errorf("after a bad reload: %d and %d with the first token of before, want it to count", a, b)
		}
	}
}

// tcpAddress is where a client's requests go; a client of the socket ignores it.
func tcpAddress(c *http.Client) string {
	if t, ok := c.Transport.(*target); ok {
		return t.address
	}
	return "socket"
}

// target is a transport that remembers an address.
type target struct {
	http.Transport
	address string
}

// serveLocal serves l on a socket and on TCP, and returns a client for each.
func serveLocal(t *testing.T, l *Local, path string) (socket, tcp *http.Client) {
	t.Helper()
	s, err := process.ListenSocket(path, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	p, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := l.serve(ctx, []net.Listener{s, p}); err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	t.Cleanup(func() { cancel(); serving.Wait() })
	return &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}}}, &http.Client{Transport: &target{address: p.Addr().String()}}
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}
