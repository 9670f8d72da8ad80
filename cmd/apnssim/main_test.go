package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/sideshow/apns2"
	"github.com/sideshow/apns2/token"
	"golang.org/x/net/http2"

	"badgerelay/apns/apnstest"
	"badgerelay/cmd/internal/command"
)

// output is what the program prints. Safe for concurrent use; said is closed
// with the first write.
type output struct {
	mu   sync.Mutex
	b    bytes.Buffer
	once sync.Once
	said chan struct{}
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.once.Do(func() { close(o.said) })
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// running is a run of the program in this process.
type running struct {
	t         *testing.T
	out       *output
	stop      func() int // ends it and returns its exit code
	page      string
	apns      string
	directory string
}

func start(t *testing.T, args ...string) *running {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "sim")
	return startIn(t, dir, append([]string{"--generate-key", dir}, args...)...)
}

// run is the whole program.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	t := &command.Terminal{Out: stdout, Err: stderr}
	return command.Run(ctx, program(t), t, args)
}

func startIn(t *testing.T, dir string, args ...string) *running {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	p := &running{t: t, out: &output{said: make(chan struct{})}, directory: dir}
	errs := &output{said: make(chan struct{})}
	ended := make(chan int, 1)
	go func() {
		ended <- run(ctx, append([]string{"--listen", "127.0.0.1:0", "--management", "127.0.0.1:0"}, args...), p.out, errs)
	}()
	p.stop = sync.OnceValue(func() int {
		cancel()
		return <-ended
	})
	t.Cleanup(func() { p.stop() })
	select {
	case <-p.out.said:
	case code := <-ended:
		t.Fatalf("ended with %d: %s", code, errs)
	}
	p.page, p.apns = p.find(`page"?: +"?(\S+)/`), p.find(`(?i)apns"?: +"?([^,"]+)[,"]`)
	return p
}

func (p *running) find(pattern string) string {
	p.t.Helper()
	m := regexp.MustCompile(pattern).FindStringSubmatch(p.out.String())
	if m == nil {
		p.t.Fatalf("no %s in %s", pattern, p.out)
	}
	return m[1]
}

func (p *running) get(path string) string {
	p.t.Helper()
	res, err := http.Get(p.page + path)
	if err != nil {
		p.t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != 200 {
		p.t.Fatalf("GET %s: %d %v", path, res.StatusCode, err)
	}
	return string(body)
}

// push sends a badge with the files the program wrote, as a relay would.
func (p *running) push(device string, badge int) *apns2.Response {
	p.t.Helper()
	key, err := token.AuthKeyFromFile(filepath.Join(p.directory, "AuthKey_SIMKEY0001.p8"))
	if err != nil {
		p.t.Fatal(err)
	}
	ca, err := os.ReadFile(filepath.Join(p.directory, "apnssim-ca.pem"))
	if err != nil {
		p.t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	client := apns2.NewTokenClient(&token.Token{AuthKey: key, KeyID: "SIMKEY0001", TeamID: "SIMTEAM001"})
	client.Host = "https://" + p.apns
	transport := &http2.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}
	defer transport.CloseIdleConnections()
	client.HTTPClient.Transport = transport
	res, err := client.Push(&apns2.Notification{
		DeviceToken: device, Topic: "com.example.mail", PushType: apns2.PushTypeAlert, Payload: fmt.Appendf(nil, `{"aps":{"badge":%d}}`, badge),
	})
	if err != nil {
		p.t.Fatal(err)
	}
	return res
}

func (p *running) devices() (devices []struct {
	Token, Name, Mailbox, Model string
	Badge                       int
}) {
	p.t.Helper()
	var list struct{ Devices any }
	list.Devices = &devices
	if err := json.Unmarshal([]byte(p.get("/api/devices")), &list); err != nil {
		p.t.Fatal(err)
	}
	return devices
}

func TestAPushReachesTheDevice(t *testing.T) {
	p := start(t, "--devices", "2", "--device", "mailbox=box@example.org,name=Tablet,model=iPad", "--faults", "off")
	if !strings.Contains(p.get("/"), "<title>badgerelay · APNs simulator</title>") {
		t.Error("the page is not there")
	}
	badges := map[string]int{}
	for i, d := range p.devices() {
		if res := p.push(d.Token, i+5); res.StatusCode != 200 {
			t.Errorf("push to %s is answered %d %s, want 200", d.Name, res.StatusCode, res.Reason)
		}
		badges[d.Token] = i + 5
	}
	if len(badges) != 3 {
		t.Errorf("%d devices, want 3", len(badges))
	}
	for _, d := range p.devices() {
		if d.Badge != badges[d.Token] {
			t.Errorf("%s shows %d, want %d", d.Name, d.Badge, badges[d.Token])
		}
	}
	if code := p.stop(); code != command.Done {
		t.Errorf("exit code %d after the signal, want %d", code, command.Done)
	}
}

func TestWhatIsPrintedFitsTheRelay(t *testing.T) {
	p := start(t, "--topic", "com.example.mail,com.example.other", "--seed", "42", "--environment", "sandbox")
	for _, want := range []string{"apps:\n", "topic: \"com.example.mail\"", "topic: \"com.example.other\"", "environment: sandbox", "seed 42",
		fmt.Sprintf("address: %q", p.apns), fmt.Sprintf("ca_file: %q", filepath.Join(p.directory, "apnssim-ca.pem")),
		fmt.Sprintf("key_file: %q", filepath.Join(p.directory, "AuthKey_SIMKEY0001.p8")), `key_id: "SIMKEY0001"`, `team_id: "SIMTEAM001"`} {
		if !strings.Contains(p.out.String(), want) {
			t.Errorf("%q is not in\n%s", want, p.out)
		}
	}
	info, err := os.Stat(filepath.Join(p.directory, "AuthKey_SIMKEY0001.p8"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the signing key's file is %v, %v; want mode 0600", info.Mode(), err)
	}
}

func TestARestartKeepsKeyAndTokens(t *testing.T) {
	first := start(t, "--devices", "1", "--faults", "off")
	device := first.devices()[0].Token
	if code := first.stop(); code != command.Done {
		t.Fatalf("exit code %d, want %d", code, command.Done)
	}
	signing := filepath.Join(first.directory, "AuthKey_SIMKEY0001.p8")
	second := startIn(t, first.directory, "--public-key", signing, "--ca-file", filepath.Join(first.directory, "apnssim-ca.pem"),
		"--devices", "1", "--faults", "off", "--fast", "--stream-limit", "10", "--rtt", "1ms")
	if res := second.push(device, 3); res.StatusCode != 200 {
		t.Errorf("push after a restart is answered %d %s, want 200", res.StatusCode, res.Reason)
	}
}

// A second simulator on ports that are taken fails, and leaves the files alone
// that the first one's relay reads at its next start.
func TestASecondOneLeavesTheFilesOfTheFirst(t *testing.T) {
	first := start(t, "--faults", "off")
	ca := filepath.Join(first.directory, "apnssim-ca.pem")
	before, err := os.ReadFile(ca)
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct{ flag, listen, management string }{
		{"--listen", first.apns, "127.0.0.1:0"},
		{"--management", "127.0.0.1:0", strings.TrimPrefix(first.page, "http://")},
	} {
		var stdout, stderr bytes.Buffer
		args := []string{"--generate-key", first.directory, "--listen", tc.listen, "--management", tc.management}
		if code := run(t.Context(), args, &stdout, &stderr); code != command.Failed {
			t.Errorf("%s is taken: exit code %d, want %d", tc.flag, code, command.Failed)
		}
		if !strings.HasPrefix(stderr.String(), "apnssim: "+tc.flag+": ") || stdout.Len() > 0 {
			t.Errorf("%s is taken: says %q and %q, want the flag first and alone", tc.flag, stderr.String(), stdout.String())
		}
	}
	if after, err := os.ReadFile(ca); err != nil || !bytes.Equal(after, before) {
		t.Errorf("the authority of the first one was written over (%v)", err)
	}
}

// A page that follows the events doesn't hold the program up.
func TestStopEndsOpenPages(t *testing.T) {
	p := start(t)
	res, err := http.Get(p.page + "/api/events")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if code := p.stop(); code != command.Done {
		t.Errorf("exit code %d with a page open, want %d", code, command.Done)
	}
}

func TestWrongCalls(t *testing.T) {
	dir := t.TempDir()
	notPEM := filepath.Join(dir, "key.txt")
	if err := os.WriteFile(notPEM, []byte("no key"), 0o600); err != nil {
		t.Fatal(err)
	}
	key := []string{"--generate-key", filepath.Join(dir, "sim")}
	anyPort := []string{"--listen", "127.0.0.1:0", "--management", "127.0.0.1:0"}
	for _, tc := range []struct {
		name string
		args []string
		code int
		want []string
	}{
		{"every address", append(key, "--listen", ":2197"), command.Misused, []string{"--listen", "loopback"}},
		{"an outside address", append(key, "--management", "192.0.2.1:80"), command.Misused, []string{"--management", "loopback"}},
		{"a name", append(key, "--listen", "example.org:2197"), command.Misused, []string{"loopback"}},
		{"no port", append(key, "--listen", "127.0.0.1"), command.Misused, []string{"host:port"}},
		{"no key", nil, command.Misused, []string{"--generate-key", "--public-key"}},
		{"two keys", append(key, "--public-key", "x"), command.Misused, []string{"--public-key"}},
		{"unknown faults", append(key, "--faults", "many"), command.Misused, []string{"--faults"}},
		{"too many devices", append(key, "--devices", "5001"), command.Misused, []string{"5001"}},
		{"several at once", append(key, "--listen", ":1", "--device", "name=x"), command.Misused,
			[]string{"--listen", "--device"}},
		{"an empty team", append(key, "--team", ""), command.Misused, []string{"--team is empty"}},
		{"a team that Apple has not", append(key, "--team", "team"), command.Misused, []string{`--team: "team" is not ten capital letters and digits`}},
		{"a key that Apple has not", append(key, "--key-id", "key0000001"), command.Misused, []string{`--key-id: "key0000001" is not ten capital letters and digits`}},
		{"device with an empty mailbox", append(key, "--device", "mailbox=,name=x"), command.Misused, []string{`: mailbox is empty`}},
		{"device without mailbox", append(key, "--device", "name=x"), command.Misused, []string{"mailbox is missing"}},
		{"device with a bad token", append(key, "--device", "mailbox=a,token=zz"), command.Misused, []string{"hexadecimal"}},
		{"device with a bad model", append(key, "--device", "mailbox=a,model=Watch"), command.Misused, []string{"Watch"}},
		{"device with a bad key", append(key, "--device", "mailbox=a,colour=red"), command.Misused, []string{"colour"}},
		{"unknown flag", append(key, "--colour"), command.Misused, []string{"--colour"}},
		{"arguments", append(key, "extra"), command.Misused, []string{"extra"}},
		{"missing key file", append(anyPort, "--public-key", filepath.Join(dir, "missing")), command.Misused, []string{"--public-key", "missing"}},
		{"not a key", append(anyPort, "--public-key", notPEM), command.Misused, []string{"--public-key", "not PEM"}},
	} {
		var stdout, stderr bytes.Buffer
		if code := run(t.Context(), tc.args, &stdout, &stderr); code != tc.code {
			t.Errorf("%s: exit code %d, want %d", tc.name, code, tc.code)
		}
		for _, want := range tc.want {
			if !strings.Contains(stderr.String(), want) {
				t.Errorf("%s: %q does not mention %q", tc.name, stderr.String(), want)
			}
		}
	}
}

func TestPublicKeyInPEM(t *testing.T) {
	dir := t.TempDir()
	want, err := apnstest.WriteSigningKey(filepath.Join(dir, "key.p8"))
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(want)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "public.pem")
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{path, filepath.Join(dir, "key.p8")} {
		var got *ecdsa.PublicKey
		if got, err = readPublicKey(file); err != nil || !got.Equal(want) {
			t.Errorf("%s: read %v, %v", filepath.Base(file), got, err)
		}
	}
	if _, err := apnstest.WriteSigningKey(path); err == nil {
		t.Error("a signing key was written over a file")
	}
}

// TestAuthorityIsKept: who trusted the simulator before its restart does after it,
// and a key that does not fit its certificate is told of.
func TestAuthorityIsKept(t *testing.T) {
	first := start(t, "--output", "json")
	if text := first.out.String(); !json.Valid([]byte(text)) {
		t.Errorf("--output json printed %s", text)
	}
	before, err := os.ReadFile(filepath.Join(first.directory, authorityFile))
	if err != nil {
		t.Fatal(err)
	}
	first.stop()
	second := startIn(t, first.directory, "--generate-key", first.directory)
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(before)
	conn, err := tls.Dial("tcp", second.apns, &tls.Config{RootCAs: pool, NextProtos: []string{"h2"}})
	if err != nil {
		t.Fatalf("with the authority of before: %v", err)
	}
	_ = conn.Close() // it is only looked at
	second.stop()
	info, err := os.Stat(filepath.Join(first.directory, authorityKeyFile))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the authority's key: %v, %v; want mode 0600", info, err)
	}
	if err := os.Remove(filepath.Join(first.directory, authorityFile)); err != nil {
		t.Fatal(err)
	}
	third := startIn(t, first.directory, "--generate-key", first.directory)
	third.stop()
	other, err := os.ReadFile(filepath.Join(first.directory, authorityFile))
	if err != nil || bytes.Equal(other, before) {
		t.Fatalf("without its certificate another authority is made: %v", err)
	}
	if err := os.WriteFile(filepath.Join(first.directory, authorityFile), before, 0o600); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	code := run(t.Context(), []string{"--listen", "127.0.0.1:0", "--management", "127.0.0.1:0", "--generate-key", first.directory}, &out, &out)
	if code != command.Failed || !strings.Contains(out.String(), "don't belong together; remove both") {
		t.Errorf("with another's certificate: %d %q", code, &out)
	}
}

func TestHelp(t *testing.T) {
	var stdout, stderr bytes.Buffer
	if code := run(t.Context(), []string{"--help"}, &stdout, &stderr); code != command.Done || !strings.Contains(stdout.String(), "--generate-key") {
		t.Errorf("--help: %d %s", code, stdout.String())
	}
	for name, meaning := range apnstest.ClientFaultMeanings() {
		if !strings.Contains(stdout.String(), name) || !strings.Contains(stdout.String(), meaning) {
			t.Errorf("--help does not explain the client fault %s", name)
		}
	}
}

func TestVersion(t *testing.T) {
	var out, log bytes.Buffer
	if code := run(t.Context(), []string{"version"}, &out, &log); code != command.Done || !strings.HasPrefix(out.String(), "apnssim ") {
		t.Errorf("version = %d, %q, %q", code, &out, &log)
	}
	if code := run(t.Context(), []string{"version", "--output", "xml"}, &out, &log); code != command.Misused {
		t.Errorf("version --output xml = %d, %q; want %d", code, &log, command.Misused)
	}
}

// TestTopicsThatNoPushReaches are named at the start.
func TestTopicsThatNoPushReaches(t *testing.T) {
	o := &options{topics: []string{"com.example.mail"}, device: []string{"mailbox=ann,topic=com.foo", "mailbox=bob"}, devices: 1}
	var said strings.Builder
	o.warnOfTopics(&command.Terminal{Err: &said})
	if want := "warning: the device of ann has topic com.foo, which no --topic names: no push reaches it\n"; said.String() != want {
		t.Errorf("%q, want %q", &said, want)
	}
}
