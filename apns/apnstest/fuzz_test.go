package apnstest

import (
	"bytes"
	"encoding/base64"
	"io"
	"math/rand/v2"
	"net"
	"reflect"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"badgerelay/apns"
)

// FuzzServerFrames feeds what a client sends after its preface to a
// connection. Whatever it is, the connection must end in good order, and a
// correct client must be served afterwards.
func FuzzServerFrames(f *testing.F) {
	var seed bytes.Buffer
	fr := http2.NewFramer(&seed, nil)
	_ = fr.WriteSettings() // into memory, as all of these
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	c := client{token: providerTokenAt(time.Now())}
	for _, h := range c.fields() {
		_ = enc.WriteField(h)
	}
	_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true})
	_ = fr.WriteData(1, true, []byte(badgeOf3))
	f.Add(seed.Bytes())
	_ = fr.WritePing(false, [8]byte{})
	_ = fr.WriteWindowUpdate(0, 9)
	_ = fr.WriteRSTStream(1, http2.ErrCodeCancel)
	_ = fr.WriteGoAway(0, http2.ErrCodeNo, nil)
	_ = fr.WritePriority(3, http2.PriorityParam{})
	f.Add(seed.Bytes())
	s := newSim(f, func(c *Config) {
		c.ConnectsPerMinute = -1
		c.MaxDevicePerSecond = -1
	})
	f.Cleanup(s.Close)
	f.Fuzz(func(t *testing.T, frames []byte) {
		// Without TLS, whose cost would leave few inputs a second.
		client, server := net.Pipe()
		c := newConn(s, 1, plain{server}, server, nil, rand.New(rand.NewPCG(1, 1)))
		done := make(chan struct{})
		go func() { // ends with the connection; waited for below
			defer close(done)
			_ = c.serve(NoFault) // any end is good
		}()
		drained := make(chan struct{})
		go func() { // likewise
			defer close(drained)
			_, _ = io.Copy(io.Discard, client)
			_ = client.Close() // as a client does when the server ends the connection
		}()
		_, _ = client.Write(append([]byte(http2.ClientPreface), frames...)) // the server may have gone first
		_ = client.Close()                                                  // likewise
		<-drained
		<-done
		if len(c.streams) != 0 || s.counters.inFlight.Load() != 0 {
			t.Errorf("%d streams, %d in flight after the end", len(c.streams), s.counters.inFlight.Load())
		}
	})
}

// plain is a connection without TLS.
type plain struct{ net.Conn }

func (p plain) CloseWrite() error { return p.Close() }

// FuzzProviderToken feeds the authorization field.
func FuzzProviderToken(f *testing.F) {
	f.Add(providerTokenAt(time.Now()))
	f.Add("e30.e30.")
	f.Add(base64.URLEncoding.EncodeToString([]byte(`{"alg":"ES256","kid":"K"}`)) + "." +
		base64.URLEncoding.EncodeToString([]byte(`{"iss":"T","iat":"1.5e9"}`)) + ".AA==")
	key := &fixture().key.PublicKey
	f.Fuzz(func(t *testing.T, text string) {
		token, err := parseToken(text, false)
		if err == nil && (token.team == "" || token.key == "") {
			t.Errorf("%q: parsed without team or key", text)
		}
		strict, strictErr := parseToken(text, true)
		if strictErr == nil && (err != nil || !reflect.DeepEqual(strict, token)) {
			t.Errorf("%q: %v in strict mode, %v (%v) in the other", text, strict, token, err)
		}
		if err == nil {
			token.verify(key, true)
		}
	})
}

// FuzzPayload compares the badge that is read the short way with the one read
// from the JSON.
func FuzzPayload(f *testing.F) {
	for _, s := range []string{`{"aps":{"badge":7}}`, `{"aps":{"badge":007}}`, `{"aps":{"badge":2147483648}}`, `{"aps":{"badge":7,"badge":8}}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var st stream
		st.badge = -1
		short, ok := plainBadge(body)
		payload, twice, err := parseObject(body)
		if err != nil {
			if ok {
				t.Errorf("%q: %d read from what is no JSON: %v", body, short, err)
			}
			return
		}
		st.readAPS(payload["aps"], len(twice) > 0)
		if ok && st.badge != short {
			t.Errorf("%q: %d read the short way, %d from the JSON", body, short, st.badge)
		}
		if st.badge < -1 || st.badge > apns.MaxBadge {
			t.Errorf("%q: %d is no badge", body, st.badge)
		}
	})
}

// FuzzAudit compares the walk over a header block with the decoder's count.
func FuzzAudit(f *testing.F) {
	f.Add([]byte{0x82, 0x40, 1, 'a', 1, 'b', 0x3f, 0xe1, 0x1f})
	f.Fuzz(func(t *testing.T, block []byte) {
		n := 0
		dec := hpack.NewDecoder(headerTableSize, func(hpack.HeaderField) { n++ })
		_, err := dec.Write(block)
		if err == nil {
			err = dec.Close()
		}
		a := hpackAudit{size: headerTableSize}
		a.walk(block)
		if err == nil && len(a.reps) != n {
			t.Errorf("%x: walked over %d fields, decoded %d", block, len(a.reps), n)
		}
	})
}
