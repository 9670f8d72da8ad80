package main

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"badgerelay/apns/apnstest"
	"badgerelay/auth/authtest"
	"badgerelay/cmd/badgerelay/internal/daemon"
	"badgerelay/cmd/internal/command"
	"badgerelay/cmd/internal/configfile"
)

// testTimeout bounds every wait for something that is about to happen.
const testTimeout = 20 * time.Second

// run is the whole program.
func run(ctx context.Context, args []string, p process) int {
	return command.Run(ctx, p.command(), p.Terminal, args)
}

// terminal has no environment.
func terminal(in io.Reader, out io.Writer) *command.Terminal {
	return &command.Terminal{In: in, Out: out, Err: out, Getenv: func(string) string { return "" }}
}

// execute runs the program once and returns its exit code and what it printed.
func execute(t *testing.T, args ...string) (code int, out string) {
	t.Helper()
	return executeWith(t, "", args...)
}

func executeWith(t *testing.T, in string, args ...string) (code int, out string) {
	t.Helper()
	var b bytes.Buffer
	code = run(t.Context(), args, process{Terminal: terminal(strings.NewReader(in), &b)})
	return code, b.String()
}

// want runs the program and compares its exit code and a part of its output.
func want(t *testing.T, code int, part string, args ...string) string {
	t.Helper()
	got, out := execute(t, args...)
	if got != code || !strings.Contains(out, part) {
		t.Errorf("badgerelay %s = %d, %q; want %d with %q", strings.Join(args, " "), got, out, code, part)
	}
	return out
}

// logbook keeps a log and lets tests wait for a line of it.
type logbook struct {
	mu      sync.Mutex // guards what follows
	text    strings.Builder
	changed chan struct{} // closed with the next line
}

func (l *logbook) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.changed != nil {
		close(l.changed)
		l.changed = nil
	}
	return l.text.Write(p)
}

func (l *logbook) read() (string, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.changed == nil {
		l.changed = make(chan struct{})
	}
	return l.text.String(), l.changed
}

func (l *logbook) wait(t *testing.T, part string) {
	t.Helper()
	l.waitAfter(t, 0, part)
}

// waitAfter waits for a line after the first bytes of the log.
func (l *logbook) waitAfter(t *testing.T, start int, part string) {
	t.Helper()
	timeout := time.After(testTimeout)
	for {
		text, changed := l.read()
		if strings.Contains(text[start:], part) {
			return
		}
		select {
		case <-changed:
		case <-timeout:
			t.Fatalf("the log never said %q:\n%s", part, text)
		}
	}
}

// served is a daemon that runs until the test ends or stop is called.
type served struct {
	daemon.Serving
	log    *logbook
	cancel context.CancelFunc
	code   chan int
	reload chan os.Signal
}

// serve starts the daemon on a configuration and waits until it serves.
func serve(t *testing.T, file string) *served {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	s := &served{log: &logbook{}, cancel: cancel, code: make(chan int, 1), reload: make(chan os.Signal, 1)}
	ready := make(chan daemon.Serving, 1)
	go func() { // ends when the daemon does; Cleanup waits for it
		s.code <- run(ctx, []string{"serve", "--config", file}, process{
			Terminal: terminal(strings.NewReader(""), s.log),
			reload:   s.reload, ready: func(at daemon.Serving) { ready <- at },
		})
	}()
	select {
	case s.Serving = <-ready:
	case code := <-s.code:
		text, _ := s.log.read()
		t.Fatalf("serve = %d before it served:\n%s", code, text)
	}
	t.Cleanup(func() { s.stop(t) })
	return s
}

// stop asks the daemon to drain and returns its exit code.
func (s *served) stop(t *testing.T) int {
	t.Helper()
	s.cancel()
	select {
	case code := <-s.code:
		s.code <- code
		return code
	case <-time.After(testTimeout):
		text, _ := s.log.read()
		t.Fatalf("the daemon does not end:\n%s", text)
		return -1
	}
}

func (s *served) hup() { s.reload <- syscall.SIGHUP }

// files is a directory with a configuration and the keys that it names.
type files struct{ dir string }

func newFiles(t *testing.T) files {
	t.Helper()
	return files{t.TempDir()}
}

func (f files) path(name string) string { return filepath.Join(f.dir, name) }

func (f files) write(t *testing.T, name, content string) string {
	t.Helper()
	if err := os.WriteFile(f.path(name), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return f.path(name)
}

// base is a configuration on free ports; more is added to it.
func (f files) base(t *testing.T, more string) string {
	t.Helper()
	if !strings.Contains(more, "listen:") {
		more = "listen: {address: \"127.0.0.1:0\"}\n" + more
	}
	if !strings.Contains(more, "registry:") {
		more = "registry: {path: " + f.path("registry.db") + "}\n" + more
	}
	if !strings.Contains(more, "log:") {
		more = "log: {format: text, level: info}\n" + more
	}
	return f.write(t, "badgerelay.yaml", fmt.Sprintf(`
admin: {socket: %s}
ops: {address: "127.0.0.1:0", per_organization: true}
drain_budget: 4s
%s`, f.path("admin.sock"), more))
}

func (f files) key(t *testing.T, name string, key crypto.Signer) string {
	t.Helper()
	return f.write(t, name, string(authtest.KeyPEM(key)))
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// pair writes a self-signed certificate for localhost and its key.
func (f files) pair(t *testing.T, name string) (certificate, key string) {
	t.Helper()
	certificate, key = f.path(name+".crt"), f.path(name+".key")
	if err := authtest.NewServer(name, time.Now().AddDate(1, 0, 0), "localhost", "127.0.0.1").Write(certificate, key); err != nil {
		t.Fatal(err)
	}
	return certificate, key
}

// rsaCertificate writes an organization's certificate.
func (f files) rsaCertificate(t *testing.T, name string) string {
	t.Helper()
	return f.write(t, name, string(authtest.NewKey("Exchange S2S OAuth", time.Now()).Certificate.Raw))
}

// roots trusts what is in a file.
func roots(t *testing.T, file string) *x509.CertPool {
	t.Helper()
	pool, err := configfile.Pool(file)
	if err != nil {
		t.Fatal(err)
	}
	return pool
}

// apple runs a simulated Apple and returns the configuration of an app that
// uses it.
func apple(t *testing.T, f files) (sim *apnstest.Simulator, app string) {
	t.Helper()
	return appleOf(t, f, newKey(t), apnstest.Production)
}

// appleOf is apple with the team's key and one of Apple's environments.
func appleOf(t *testing.T, f files, key *ecdsa.PrivateKey, environment apnstest.Environment) (sim *apnstest.Simulator, app string) {
	t.Helper()
	sim, err := apnstest.New(apnstest.Config{
		TeamKeys: []apnstest.TeamKey{{TeamID: "TEAM123456", KeyID: "KEYID12345", Key: &key.PublicKey}},
		Topics:   []string{"com.example.mail"}, Environment: environment,
	})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = sim.Run(ctx, l) }) // ends with ctx
	t.Cleanup(func() { cancel(); wg.Wait() })
	authority := "apple.crt"
	if environment == apnstest.Sandbox {
		authority = "apple-sandbox.crt"
	}
	return sim, fmt.Sprintf(`
apps:
  - name: mail
    topic: com.example.mail
    environment: %s
    address: %s
    ca_file: %s
    token: {key_file: %s, key_id: KEYID12345, team_id: TEAM123456}
`, environment, l.Addr(), f.write(t, authority, string(sim.Authority().PEM())), f.key(t, "provider.p8", key))
}
