package apnstest

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// BenchmarkPush measures the simulator's side of a push on one connection: the
// requests are coded beforehand, 100 a write, and the answers only counted.
func BenchmarkPush(b *testing.B) {
	for _, mode := range []string{"fast", "fast-20ms", "full"} {
		b.Run(mode, func(b *testing.B) {
			s := newSim(b, func(c *Config) {
				c.Fast = mode != "full"
				c.MaxDeviceInFlight, c.MaxDevicePerSecond = -1, -1
				if mode == "fast-20ms" {
					c.RoundTrip = 20 * time.Millisecond
				}
			})
			benchPush(b, s, listen(b, s))
		})
	}
}

func benchPush(b *testing.B, s *Simulator, addr string) {
	const batch = 100
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		b.Fatal(err)
	}
	tc := tls.Client(nc, &tls.Config{RootCAs: s.RootCAs(), ServerName: "localhost", NextProtos: []string{"h2"}})
	defer tc.Close()
	var c client
	c.token = providerTokenAt(time.Now())
	enc := hpack.NewEncoder(&c.block)
	var out []byte
	fr := http2.NewFramer(writerFunc(func(p []byte) (int, error) {
		out = append(out, p...)
		return len(p), nil
	}), tc)
	next := uint32(1)
	for n := range 500 {
		s.RegisterDevice(phone(n), topic, Production, Meta{})
	}
	add := func() {
		c.block.Reset()
		for _, f := range c.fields(":path", "/3/device/"+phone(int(next/2)%500).Hex(), "apns-id", "-", "host", "-") {
			f.Sensitive = f.Name == ":path"
			if f.Value != "-" {
				_ = enc.WriteField(f) // into memory
			}
		}
		_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: next, BlockFragment: c.block.Bytes(), EndHeaders: true}) // likewise
		_ = fr.WriteData(next, true, []byte(badgeOf3))
		next += 2
	}
	answered := make(chan int, 1024)
	go func() { // ends with the connection
		defer close(answered)
		for {
			f, err := fr.ReadFrame()
			if err != nil {
				return
			}
			if f.Header().Type == http2.FrameHeaders {
				answered <- 1
			}
		}
	}()
	out = append(out, http2.ClientPreface...)
	_ = fr.WriteSettings() // into memory
	add()
	if _, err := tc.Write(out); err != nil {
		b.Fatal(err)
	}
	<-answered
	inFlight := 0
	b.ReportAllocs()
	b.ResetTimer()
	for sent := 0; sent < b.N; sent += batch {
		out = out[:0]
		for range batch {
			add()
		}
		if _, err := tc.Write(out); err != nil {
			b.Fatal(err)
		}
		for inFlight += batch; inFlight > 800; inFlight-- {
			if _, ok := <-answered; !ok {
				b.Fatal(fmt.Errorf("connection ended: %v", s.Stats()))
			}
		}
	}
	for ; inFlight > 0; inFlight-- {
		<-answered
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "push/s")
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

var _ io.Writer = writerFunc(nil)
