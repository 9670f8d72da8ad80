package apnstest

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"badgerelay/apns"
)

const (
	topic    = "com.example.mail"
	teamID   = "TEAM000001"
	keyID    = "KEY0000001"
	pushID   = "eabeae54-14a8-11e5-b60b-1697f925ec7b"
	badgeOf3 = `{"aps":{"badge":3}}`
)

// fixture is made once, outside of every bubble.
var fixture = sync.OnceValue(func() (f struct {
	ca    *Authority
	cert  tls.Certificate
	key   *ecdsa.PrivateKey
	other *ecdsa.PrivateKey
}) {
	var err error
	if f.ca, err = NewAuthority(); err != nil {
		panic(err)
	}
	if f.cert, err = f.ca.ServerCertificate(time.Now().AddDate(20, 0, 0), serverHosts...); err != nil {
		panic(err)
	}
	if f.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		panic(err)
	}
	if f.other, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		panic(err)
	}
	return f
})

// phone returns the token of the n-th test device.
func phone(n int) apns.DeviceToken {
	raw := bytes.Repeat([]byte{0xa0}, 32)
	raw[30], raw[31] = byte(n>>8), byte(n)
	token, err := apns.DeviceTokenFromBytes(raw)
	if err != nil {
		panic(err)
	}
	return token
}

// newSim makes a simulator that knows the test's key and device 1. It is
// closed at the end of the test or bubble by the caller.
func newSim(t testing.TB, change func(*Config)) *Simulator {
	t.Helper()
	f := fixture()
	cfg := Config{
		Authority: f.ca, Certificate: &f.cert, Topics: []string{topic}, Seed: 1,
		TeamKeys: []TeamKey{{TeamID: teamID, KeyID: keyID, Key: &f.key.PublicKey}},
	}
	if change != nil {
		change(&cfg)
	}
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	s.RegisterDevice(phone(1), topic, cfg.Environment, Meta{Name: "one"})
	return s
}

// sign makes a provider token.
func sign(key *ecdsa.PrivateKey, header, claims map[string]any, der bool) string {
	part := func(v any) string {
		b, err := json.Marshal(v)
		if err != nil {
			panic(err)
		}
		return base64.RawURLEncoding.EncodeToString(b)
	}
	text := part(header) + "." + part(claims)
	return text + "." + base64.RawURLEncoding.EncodeToString(signature(key, text, der))
}

func signature(key *ecdsa.PrivateKey, text string, der bool) []byte {
	sum := sha256.Sum256([]byte(text))
	sig, err := ecdsa.SignASN1(rand.Reader, key, sum[:])
	if !der {
		r, s, e := ecdsa.Sign(rand.Reader, key, sum[:])
		sig, err = append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...), e
	}
	if err != nil {
		panic(err)
	}
	return sig
}

func providerTokenAt(iat time.Time) string {
	return sign(fixture().key, map[string]any{"alg": "ES256", "kid": keyID}, map[string]any{"iss": teamID, "iat": iat.Unix()}, false)
}

// client is a raw HTTP/2 client that does just what a test says. Its reader
// turns frames into events.
type client struct {
	t      testing.TB
	nc     *tls.Conn
	framer *http2.Framer
	enc    *hpack.Encoder
	block  bytes.Buffer
	next   uint32
	token  string
	answer map[uint32]*answer
	events []string // of the connection: "settings 1", "goaway 7 last text", "ping"
	err    error    // why reading ended
	mu     sync.Mutex
	moved  chan struct{}
	ended  chan struct{}
	mute   bool // does not acknowledge SETTINGS
}

type answer struct {
	status  string
	fields  map[string]string
	body    string
	done    bool
	reset   http2.ErrCode
	isReset bool
	headers int
}

// connect dials the simulator in memory and sends preface and SETTINGS.
func connect(t testing.TB, s *Simulator, change func(*tls.Config)) *client {
	t.Helper()
	c, err := tryConnect(t, s, change)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func tryConnect(t testing.TB, s *Simulator, change func(*tls.Config)) (*client, error) {
	nc, err := s.Dial(context.Background(), "tcp", "")
	if err != nil {
		return nil, err
	}
	return handshake(t, nc, change)
}

func handshake(t testing.TB, nc net.Conn, change func(*tls.Config)) (*client, error) {
	c, err := greet(t, nc, change)
	if err == nil {
		go c.read() // ends with the connection; close waits for it
	}
	return c, err
}

// greet sends preface and SETTINGS; what comes back is for c.read.
func greet(t testing.TB, nc net.Conn, change func(*tls.Config)) (*client, error) {
	cfg := &tls.Config{RootCAs: fixture().ca.Pool(), ServerName: "api.push.apple.com", NextProtos: []string{"h2"}}
	if change != nil {
		change(cfg)
	}
	tc := tls.Client(nc, cfg)
	if err := tc.Handshake(); err != nil {
		_ = nc.Close()
		return nil, err
	}
	c := &client{
		t: t, nc: tc, next: 1, token: providerTokenAt(time.Now()), answer: map[uint32]*answer{},
		moved: make(chan struct{}, 1), ended: make(chan struct{}),
	}
	c.framer = http2.NewFramer(tc, tc)
	c.framer.AllowIllegalWrites = true
	c.enc = hpack.NewEncoder(&c.block)
	if _, err := io.WriteString(tc, http2.ClientPreface); err != nil {
		return nil, err
	}
	if err := c.framer.WriteSettings(http2.Setting{ID: http2.SettingEnablePush, Val: 0}); err != nil {
		return nil, err
	}
	return c, nil
}

func (c *client) read() {
	defer close(c.ended)
	fr := http2.NewFramer(io.Discard, c.nc)
	fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	for first := true; ; first = false {
		f, err := fr.ReadFrame()
		if first && err == nil {
			if s, ok := f.(*http2.SettingsFrame); !ok || s.IsAck() { // RFC 9113, section 3.4
				c.t.Errorf("the first frame is %v, want SETTINGS", f.Header())
			}
		}
		if s, ok := f.(*http2.SettingsFrame); ok && !s.IsAck() && !c.mute {
			_ = http2.NewFramer(c.nc, nil).WriteSettingsAck() // the connection may be gone
		}
		c.mu.Lock()
		if err != nil {
			c.err = err
			c.mu.Unlock()
			c.poke()
			return
		}
		c.take(f)
		c.mu.Unlock()
		c.poke()
	}
}

func (c *client) poke() {
	select {
	case c.moved <- struct{}{}:
	default:
	}
}

func (c *client) take(f http2.Frame) {
	id := f.Header().StreamID
	a := c.answer[id]
	if a == nil {
		a = &answer{fields: map[string]string{}}
		c.answer[id] = a
	}
	switch f := f.(type) {
	case *http2.MetaHeadersFrame:
		a.headers++
		for _, h := range f.Fields {
			a.fields[h.Name] = h.Value
		}
		a.status = a.fields[":status"]
		a.done = f.StreamEnded()
	case *http2.DataFrame:
		a.body += string(f.Data())
		a.done = f.StreamEnded()
	case *http2.RSTStreamFrame:
		a.reset, a.isReset, a.done = f.ErrCode, true, true
	case *http2.SettingsFrame:
		if v, ok := f.Value(http2.SettingMaxConcurrentStreams); ok {
			c.events = append(c.events, fmt.Sprintf("settings %d", v))
		}
	case *http2.GoAwayFrame:
		c.events = append(c.events, fmt.Sprintf("goaway %d %d %s", f.ErrCode, f.LastStreamID, f.DebugData()))
	case *http2.PingFrame:
		c.events = append(c.events, fmt.Sprintf("ping %v", f.IsAck()))
	case *http2.WindowUpdateFrame:
		c.events = append(c.events, fmt.Sprintf("window %d", f.Increment))
	}
}

// fields are the header fields of a push to device 1; changes are name, value
// pairs: a value of "-" leaves the field out, a name with + adds it again.
func (c *client) fields(changes ...string) []hpack.HeaderField {
	list := []hpack.HeaderField{
		{Name: ":method", Value: "POST"}, {Name: ":scheme", Value: "https"}, {Name: ":path", Value: "/3/device/" + phone(1).Hex()},
		{Name: "host", Value: "api.push.apple.com"}, {Name: "authorization", Value: "bearer " + c.token},
		{Name: "apns-topic", Value: topic}, {Name: "apns-push-type", Value: "alert"}, {Name: "apns-id", Value: pushID},
	}
	for i := 0; i < len(changes); i += 2 {
		name, value := changes[i], changes[i+1]
		found := false
		for j := range list {
			if list[j].Name == name {
				found = true
				list[j].Value = value
			}
		}
		if !found {
			list = append(list, hpack.HeaderField{Name: strings.TrimPrefix(name, "+"), Value: value})
		}
	}
	return list
}

// open sends the HEADERS of a push and returns the stream.
func (c *client) open(end bool, changes ...string) uint32 {
	id := c.next
	c.next += 2
	c.block.Reset()
	for _, f := range c.fields(changes...) {
		if f.Value == "-" {
			continue
		}
		f.Sensitive = f.Name == ":path" || f.Name == "apns-id"
		_ = c.enc.WriteField(f) // into memory
	}
	c.write(c.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: c.block.Bytes(), EndStream: end, EndHeaders: true}))
	return id
}

// send sends a whole push and returns its stream.
func (c *client) send(body string, changes ...string) uint32 {
	id := c.open(body == "", changes...)
	if body != "" {
		c.write(c.framer.WriteData(id, true, []byte(body)))
	}
	return id
}

// write passes over a connection that the simulator has ended.
func (c *client) write(err error) {
	if err != nil && !errors.Is(err, io.ErrClosedPipe) && !errors.Is(err, net.ErrClosed) {
		c.t.Logf("write: %v", err)
	}
}

// until waits until ok holds or reading has ended; it reports ok.
func (c *client) until(ok func() bool) bool {
	c.t.Helper()
	limit := time.NewTimer(time.Minute)
	defer limit.Stop()
	for {
		c.mu.Lock()
		is, ended := ok(), c.err != nil
		c.mu.Unlock()
		if is || ended {
			return is
		}
		select {
		case <-c.moved:
		case <-limit.C:
			return false
		}
	}
}

// wait waits for the end of a stream.
func (c *client) wait(id uint32) answer {
	c.t.Helper()
	if !c.until(func() bool { return c.answer[id] != nil && c.answer[id].done }) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.t.Fatalf("stream %d was not answered; connection: %v; events %q", id, c.err, c.events)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return *c.answer[id]
}

// push sends a push and returns status and reason.
func (c *client) push(body string, changes ...string) string {
	c.t.Helper()
	return c.outcome(c.wait(c.send(body, changes...)))
}

// outcome returns status and reason of an answer.
func (c *client) outcome(a answer) string {
	if a.isReset {
		return "reset " + a.reset.String()
	}
	if a.body == "" {
		return a.status
	}
	var v struct{ Reason string }
	if err := json.Unmarshal([]byte(a.body), &v); err != nil {
		return a.status + " " + a.body
	}
	return a.status + " " + v.Reason
}

// event waits for an event with that prefix, and returns it; "" if there is none.
func (c *client) event(prefix string) string {
	c.t.Helper()
	found := ""
	c.until(func() bool {
		for _, e := range c.events {
			if strings.HasPrefix(e, prefix) {
				found = e
				return true
			}
		}
		return false
	})
	return found
}

// all returns the events so far, last the newest, and peek what has come of an
// answer. Call synctest.Wait first.
func (c *client) all() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.events)
}

func (c *client) last() string {
	all := c.all()
	return all[len(all)-1]
}

func (c *client) peek(id uint32) answer {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.answer[id] == nil {
		return answer{}
	}
	return *c.answer[id]
}

func (c *client) close() {
	_ = c.nc.NetConn().Close() // the simulator may have gone first
	<-c.ended
}

// trusted connects and pushes once, so that the limit is lifted.
func trusted(t testing.TB, s *Simulator) *client {
	t.Helper()
	c := connect(t, s, nil)
	if got := c.push(badgeOf3); got != "200" {
		t.Fatalf("first push: got %s, want 200", got)
	}
	if c.event("settings 1000") == "" {
		t.Fatal("no SETTINGS with the full limit after the first valid token")
	}
	return c
}

// broken returns the rule of the last request.
func broken(s *Simulator) Rule {
	h := s.History()
	if len(h) == 0 {
		return ""
	}
	return h[len(h)-1].Rule
}

// clientFaultsOf returns the counts that are not zero.
func clientFaultsOf(s *Simulator) string {
	out := []string{}
	for k, v := range s.ClientFaults() {
		if v != 0 {
			out = append(out, fmt.Sprintf("%s:%d", k, v))
		}
	}
	return strings.Join(out, " ")
}
