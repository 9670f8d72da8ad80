package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health/grpc_health_v1"

	"badgerelay/cmd/internal/child"
	pb "badgerelay/proto/badgerelay/v1"
)

// stranger is what a client without a token repeats on a connection.
type stranger struct {
	name   string
	begin  func(f *http2.Framer)            // once; nil: nothing
	repeat func(f *http2.Framer, id uint32) // with the next stream's id
	reason string                           // how it is counted
}

const (
	floodWithoutToken = transport + `"flood_without_token"`
	tooManySettings   = transport + `"too_many_settings"`
	tooManyPings      = transport + `"too_many_pings"`
)

// into writes to memory, where nothing fails.
func into(_ error) {}

// call is a call that anybody may make, health, or one that needs a token.
func call(f *http2.Framer, id uint32, method string, end bool, more ...string) {
	into(f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: header(method, more...), EndHeaders: true, EndStream: end}))
}

const (
	publish = pb.RelayService_Publish_FullMethodName
	watch   = grpc_health_v1.Health_Watch_FullMethodName
)

var strangers = []stranger{
	{"resets", nil, func(f *http2.Framer, id uint32) {
		call(f, id, publish, false)
		into(f.WriteRSTStream(id, http2.ErrCodeCancel))
	}, floodWithoutToken},
	{"resets of public calls", nil, func(f *http2.Framer, id uint32) {
		call(f, id, watch, false)
		into(f.WriteData(id, true, make([]byte, 5)))
		into(f.WriteRSTStream(id, http2.ErrCodeCancel))
	}, floodWithoutToken},
	{"resets by a window of nothing", nil, func(f *http2.Framer, id uint32) {
		call(f, id, publish, false)
		into(f.WriteWindowUpdate(id, 0))
	}, floodWithoutToken},
	{"resets by a window too large", nil, func(f *http2.Framer, id uint32) {
		call(f, id, watch, false)
		into(f.WriteWindowUpdate(id, 1<<31-1))
	}, floodWithoutToken},
	{"resets by DATA after the end", nil, func(f *http2.Framer, id uint32) {
		call(f, id, publish, true)
		into(f.WriteData(id, false, []byte{0}))
	}, floodWithoutToken},
	{"resets by a priority of itself", nil, func(f *http2.Framer, id uint32) {
		call(f, id, publish, false)
		into(f.WritePriority(id, http2.PriorityParam{StreamDep: id}))
	}, floodWithoutToken},
	{"calls that are refused", nil, func(f *http2.Framer, id uint32) { call(f, id, publish, true) }, floodWithoutToken},
	{"blocks of 16 KB", nil, func(f *http2.Framer, id uint32) {
		call(f, id, publish, true, "x", strings.Repeat("x", 15<<10))
	}, floodWithoutToken},
	{"empty CONTINUATIONs", func(f *http2.Framer) {
		into(f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: header(publish)}))
	}, func(f *http2.Framer, _ uint32) { into(f.WriteContinuation(1, false, nil)) }, floodWithoutToken},
	{"empty DATA", func(f *http2.Framer) { call(f, 1, watch, false) },
		func(f *http2.Framer, _ uint32) { into(f.WriteData(1, false, nil)) }, floodWithoutToken},
	{"PRIORITY", nil, func(f *http2.Framer, id uint32) {
		into(f.WritePriority(id, http2.PriorityParam{Weight: 1}))
	}, floodWithoutToken},
	{"WINDOW_UPDATE", nil, func(f *http2.Framer, _ uint32) { into(f.WriteWindowUpdate(0, 1)) }, floodWithoutToken},
	{"unknown types", nil, func(f *http2.Framer, _ uint32) { into(f.WriteRawFrame(0x42, 0, 0, nil)) }, floodWithoutToken},
	{"resets of nothing", func(f *http2.Framer) { call(f, 1, watch, true) },
		func(f *http2.Framer, _ uint32) { into(f.WriteRSTStream(1, http2.ErrCodeCancel)) }, floodWithoutToken},
	{"answers to PINGs", nil, func(f *http2.Framer, _ uint32) { into(f.WritePing(true, [8]byte{})) }, floodWithoutToken},
	{"answers to SETTINGS", nil, func(f *http2.Framer, _ uint32) { into(f.WriteSettingsAck()) }, floodWithoutToken},
	{"PINGs", nil, func(f *http2.Framer, _ uint32) { into(f.WritePing(false, [8]byte{})) }, tooManyPings},
	{"SETTINGS", nil, func(f *http2.Framer, _ uint32) { into(f.WriteSettings()) }, tooManySettings},
	{"SETTINGS of thousands", nil, func(f *http2.Framer, _ uint32) {
		into(f.WriteSettings(make([]http2.Setting, 2700)...))
	}, floodWithoutToken},
}

// attack repeats it on connection after connection, until ctx is done.
func (s *stranger) attack(ctx context.Context, v *victim) {
	for ctx.Err() == nil {
		nc, hello := v.raw(ctx)
		if nc == nil {
			continue
		}
		go func() { _, _ = io.Copy(io.Discard, nc) }() // ends with the connection
		var chunk bytes.Buffer
		f := http2.NewFramer(&chunk, nil)
		f.AllowIllegalWrites = true
		_ = hello // its preface is said
		if s.begin != nil {
			s.begin(f)
		}
		for id := uint32(3); id < 1<<31; {
			for chunk.Len() < 12<<10 {
				s.repeat(f, id)
				id += 2
			}
			if _, err := nc.Write(chunk.Bytes()); err != nil {
				break
			}
			v.hits.Add(1)
			chunk.Reset()
		}
		_ = nc.Close() // so that the copy ends
	}
}

// fortress is a relay as a process of its own, whose use of the machine is known.
type fortress struct {
	*victim
	cmd *exec.Cmd
	ops string
}

func newFortress(t *testing.T) *fortress {
	t.Helper()
	f := newFiles(t)
	certificate, key := f.pair(t, "relay")
	c, lines := program(t, "serve", "--config", f.base(t, fmt.Sprintf(
		"log: {format: text, level: debug}\nlisten:\n  address: 127.0.0.1:0\n  tls: {certificate_file: %s, key_file: %s}\n", certificate, key)))
	serving := regexp.MustCompile(`msg=serving agents=(\S+) .* ops=(\S+)`)
	var at []string
	for line := range lines {
		if at = serving.FindStringSubmatch(line); at != nil {
			break
		}
	}
	if at == nil {
		t.Fatal("the relay ended before it served")
	}
	go func() { // ends with the relay
		for range lines {
		}
	}()
	t.Cleanup(func() { _ = c.Process.Kill(); _ = c.Wait() }) // a relay that was killed loses nothing
	trust := &tls.Config{RootCAs: roots(t, certificate), NextProtos: []string{"h2"}, MinVersion: tls.VersionTLS12}
	return &fortress{&victim{t: t, address: at[1], trust: trust}, c, at[2]}
}

func (f *fortress) used(t *testing.T) time.Duration {
	t.Helper()
	u, err := child.UsageOf(f.cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	return u.CPU
}

// health asks for the relay's as somebody does who has no token.
func (f *fortress) health(t *testing.T, from net.Addr) error {
	t.Helper()
	conn, err := grpc.NewClient(f.address, grpc.WithTransportCredentials(credentials.NewTLS(f.trust)),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			return (&net.Dialer{LocalAddr: from}).DialContext(ctx, "tcp", address)
		}))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close() // it was for one call
	ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
	defer cancel()
	_, err = grpc_health_v1.NewHealthClient(conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{}, grpc.WaitForReady(true))
	return err
}

// detectorCost is what the race detector, which the relay runs with where its test
// does, makes of a tenth of a core. make test runs this test without it.
var detectorCost = func() float64 {
	if raceEnabled {
		return 8
	}
	return 1
}()

// TestStrangersCostLittle has four clients of one address, without a token, repeat
// each thing that costs more to answer than to ask for, on connection after
// connection: after the first second that costs the relay a tenth of a core at
// most, and somebody else at that address is let in meanwhile.
func TestStrangersCostLittle(t *testing.T) {
	const clients, first, then = 4, time.Second, time.Second / 2
	f := newFortress(t)
	for i, s := range strangers {
		t.Run(s.name, func(t *testing.T) {
			from := &net.TCPAddr{IP: net.IPv4(127, 0, 3, byte(1+i))}
			v := &victim{t: t, address: f.address, trust: f.trust, from: from}
			before := metricAt(t, f.ops, s.reason)
			ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
			defer cancel()
			var wg sync.WaitGroup
			for range clients {
				wg.Go(func() { s.attack(ctx, v) }) // ends with ctx
			}
			time.Sleep(first) // a real process, not a bubble
			served := make(chan struct{})
			wg.Go(func() { // ends when somebody else is let in
				defer close(served)
				if err := f.health(t, from); err != nil {
					t.Errorf("somebody else at this address: %v", err)
				}
			})
			used, began := f.used(t), time.Now()
			time.Sleep(then)
			share := float64(f.used(t)-used) / float64(time.Since(began))
			t.Logf("%d writes got through; a share of %.3f of a core", v.hits.Load(), share)
			if share > 0.1*detectorCost {
				t.Errorf("the relay uses %.2f of a core, want a tenth at most", share)
			}
			<-served
			for metricAt(t, f.ops, s.reason) <= before { // under the detector it may take its time
				select {
				case <-ctx.Done():
					t.Fatalf("%s did not move", s.reason)
				case <-time.After(10 * time.Millisecond): // a real process, not a bubble
				}
			}
			cancel()
			wg.Wait()
		})
	}
}
