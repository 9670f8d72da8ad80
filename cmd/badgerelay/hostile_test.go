package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	pb "badgerelay/proto/badgerelay/v1"
)

// attackTime is how long each attack goes on.
const attackTime = time.Second

// attack is what a hostile client does to a relay until ctx is done.
type attack struct {
	name    string
	clients int // how many do it at once
	act     func(ctx context.Context, v *victim)
	metric  string // the series that has to move; empty: gRPC deals with it and tells nobody
}

// victim is a relay as its attackers see it.
type victim struct {
	t       *testing.T
	address string
	trust   *tls.Config
	token   string // of an enrolled organization: some attackers are agents
	conn    *grpc.ClientConn
	hits    atomic.Int64 // connections, frames or calls that got through to it
}

var attacks = []attack{
	{"rapid reset", 4, rapidReset, ""},
	{"flood of PINGs", 4, writeForever(func(f *http2.Framer) error { return f.WritePing(false, [8]byte{}) }), ""},
	{"flood of SETTINGS", 4, writeForever(func(f *http2.Framer) error { return f.WriteSettings() }), ""},
	{"endless metadata", 4, endlessMetadata, ""},
	{"giant metadata", 4, giantMetadata, ""},
	{"thousand connections that say nothing", 1, silentConnections, "badgerelay_ingest_connections_refused_total reason=\"address\""},
	{"handshakes that are none", 4, badHandshakes, "badgerelay_ingest_connections_refused_total reason=\"handshake\""},
	{"slow writers", 4, slowWriters, ""},
	{"slow readers", 4, slowReaders, ""},
	{"giant messages", 4, giantMessages, ""}, // gRPC refuses them before anything of ours could count
	{"gzip bombs", 4, gzipBombs, ""},
	{"flood of refused tokens", 8, tokenFlood, "badgerelay_token_refusals_total"},
}

// TestHostileClients has each attack go on while an agent that behaves
// publishes one count after the other, and looks at what it costs the agent,
// in memory, and whether an operator sees it.
func TestHostileClients(t *testing.T) {
	r := startRelayWith(t, func(files) string { return "limits: {connections_per_address: 300, calls_per_second: 100000}\n" })
	const mailboxes = 50
	for i := range mailboxes {
		r.subscribe(t, fmt.Sprintf("mailbox-%d", i), i)
	}
	pem, err := os.ReadFile(r.caFile)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	for _, a := range attacks {
		t.Run(a.name, func(t *testing.T) {
			v := &victim{
				t: t, address: r.address, token: r.token(t), conn: r.dial(t),
				trust: &tls.Config{RootCAs: roots, NextProtos: []string{"h2"}, MinVersion: tls.VersionTLS12},
			}
			before := r.metric(t, a.metric)
			ctx, cancel := context.WithTimeout(t.Context(), attackTime)
			defer cancel()
			var wg sync.WaitGroup
			for range a.clients {
				wg.Go(func() { a.act(ctx, v) }) // ends with ctx
			}
			times, peak := r.behave(ctx, t, mailboxes)
			wg.Wait()
			if a.metric != "" && r.metric(t, a.metric) <= before {
				t.Errorf("%s did not move", a.metric)
			}
			if v.hits.Load() == 0 {
				t.Error("nothing of the attack got through to the relay")
			}
			slices.Sort(times)
			t.Logf("%d hits; the agent beside: %d counts, median %v, worst %v; heap at most %d MB, attackers' part included",
				v.hits.Load(), len(times), times[len(times)/2].Round(10*time.Microsecond), times[len(times)-1].Round(10*time.Microsecond), peak>>20)
			if peak > 512<<20 {
				t.Errorf("the heap grew to %d MB", peak>>20)
			}
		})
	}
}

// behave publishes until ctx is done, and once after. Every count must be
// delivered.
func (r *enrolled) behave(ctx context.Context, t *testing.T, mailboxes int) (times []time.Duration, peak uint64) {
	t.Helper()
	relay := pb.NewRelayServiceClient(r.dial(t))
	call := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+r.token(t))
	for last := false; !last; {
		last = ctx.Err() != nil
		start := time.Now()
		within, cancel := context.WithTimeout(call, patience)
		n := len(times)
		answer, err := relay.Publish(within, &pb.PublishRequest{Events: []*pb.Event{
			{Mailbox: fmt.Sprintf("mailbox-%d", n%mailboxes), UnreadCount: uint32(start.UnixNano() >> 10 & 0x7fffffff)},
		}})
		cancel()
		if err != nil || answer.GetOutcomes()[0].GetOutcome() != pb.Outcome_OUTCOME_DELIVERED {
			t.Fatalf("count %d of the agent that behaves: %v, %v", n, answer, err)
		}
		times = append(times, time.Since(start))
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		peak = max(peak, m.HeapAlloc)
	}
	return times, peak
}

// metric adds up the samples of a name whose labels hold what follows it.
func (r *enrolled) metric(t *testing.T, series string) (sum float64) {
	t.Helper()
	name, labels, _ := strings.Cut(series, " ")
	_, body := get(t, "http://"+r.Ops+"/metrics")
	for line := range strings.Lines(body) {
		var value float64
		i := strings.LastIndexByte(line, ' ')
		if strings.HasPrefix(line, name) && strings.Contains(line, labels) && i > 0 {
			if _, err := fmt.Sscan(line[i:], &value); err == nil && name != "" {
				sum += value
			}
		}
	}
	return sum
}

// raw connects as HTTP/2 does; nil: the relay does not let it.
func (v *victim) raw(ctx context.Context) (*tls.Conn, *http2.Framer) {
	nc, err := (&tls.Dialer{Config: v.trust}).DialContext(ctx, "tcp", v.address)
	if err != nil {
		return nil, nil
	}
	context.AfterFunc(ctx, func() { _ = nc.Close() }) // the attack is over
	framer := http2.NewFramer(nc, nc)
	framer.AllowIllegalWrites = true
	_, _ = io.WriteString(nc, http2.ClientPreface) // what follows fails as well
	_ = framer.WriteSettings()
	return nc.(*tls.Conn), framer
}

// request encodes the header block of a call.
func (v *victim) request(more ...string) []byte {
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	fields := append([]string{":method", "POST", ":scheme", "https", ":path", "/badgerelay.v1.RelayService/Publish", ":authority", "localhost",
		"content-type", "application/grpc", "te", "trailers", "authorization", "Bearer " + v.token}, more...)
	for i := 0; i < len(fields); i += 2 {
		_ = encoder.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1], Sensitive: true}) // into memory
	}
	return block.Bytes()
}

func rapidReset(ctx context.Context, v *victim) {
	for ctx.Err() == nil {
		nc, f := v.raw(ctx)
		if nc == nil {
			continue
		}
		go func() { _, _ = io.Copy(io.Discard, nc) }() // ends with the connection
		block := v.request()
		for id := uint32(1); ; id += 2 {
			err := f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block, EndHeaders: true})
			if err != nil || f.WriteRSTStream(id, http2.ErrCodeCancel) != nil {
				break
			}
			v.hits.Add(1)
		}
	}
}

// writeForever repeats a frame on connection after connection.
func writeForever(frame func(*http2.Framer) error) func(context.Context, *victim) {
	return func(ctx context.Context, v *victim) {
		for ctx.Err() == nil {
			nc, f := v.raw(ctx)
			for nc != nil && frame(f) == nil {
				v.hits.Add(1)
			}
		}
	}
}

func endlessMetadata(ctx context.Context, v *victim) {
	for ctx.Err() == nil {
		nc, f := v.raw(ctx)
		if nc == nil {
			continue
		}
		_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: v.request()}) // what follows fails as well
		for f.WriteContinuation(1, false, v.request("x", strings.Repeat("y", 8000))) == nil {
			v.hits.Add(1)
		}
	}
}

// giantMetadata is a megabyte, well-formed and to its end. It takes frames: a
// client of gRPC refuses by itself to send so much.
func giantMetadata(ctx context.Context, v *victim) {
	block := v.request("x", strings.Repeat("~", 1<<20))
	for ctx.Err() == nil {
		nc, f := v.raw(ctx)
		if nc == nil {
			continue
		}
		err := f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block[:16<<10]})
		for rest := block[16<<10:]; err == nil && len(rest) > 0; rest = rest[min(len(rest), 16<<10):] {
			n := min(len(rest), 16<<10)
			err = f.WriteContinuation(1, n == len(rest), rest[:n])
		}
		v.refused(ctx, f)
		_ = nc.Close() // the attack is over
	}
}

// refused reads until the relay has ended stream 1 or the connection, and
// counts that.
func (v *victim) refused(ctx context.Context, f *http2.Framer) {
	for {
		frame, err := f.ReadFrame()
		if err != nil && ctx.Err() == nil {
			v.hits.Add(1)
		}
		if err != nil {
			return
		}
		switch frame := frame.(type) {
		case *http2.HeadersFrame:
			if frame.StreamEnded() {
				v.hits.Add(1)
				return
			}
		case *http2.RSTStreamFrame, *http2.GoAwayFrame:
			v.hits.Add(1)
			return
		}
	}
}

func silentConnections(ctx context.Context, v *victim) {
	for range 1000 {
		nc, err := new(net.Dialer).DialContext(ctx, "tcp", v.address)
		if err != nil {
			continue
		}
		v.hits.Add(1)
		defer nc.Close()
	}
	<-ctx.Done()
}

func badHandshakes(ctx context.Context, v *victim) {
	for ctx.Err() == nil {
		nc, err := new(net.Dialer).DialContext(ctx, "tcp", v.address)
		if err != nil {
			continue
		}
		_, _ = nc.Write([]byte("GET / HTTP/1.1\r\n\r\n")) // the answer says it all
		_, _ = io.Copy(io.Discard, nc)
		v.hits.Add(1)
		_ = nc.Close()
	}
}

// slowWriters begin as many calls as they may, and say a byte now and then.
func slowWriters(ctx context.Context, v *victim) {
	nc, f := v.raw(ctx)
	if nc == nil {
		return
	}
	go func() { _, _ = io.Copy(io.Discard, nc) }() // ends with the connection
	block := v.request()
	for i := range uint32(250) {
		_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: 2*i + 1, BlockFragment: block, EndHeaders: true}) // at worst it is slower
	}
	for i := uint32(0); f.WriteData(2*(i%250)+1, false, []byte{0}) == nil; i++ {
		v.hits.Add(1)
		runtime.Gosched()
	}
}

// slowReaders ask and never take an answer: their windows are closed.
func slowReaders(ctx context.Context, v *victim) {
	nc, f := v.raw(ctx)
	if nc == nil {
		return
	}
	_ = f.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0}) // what follows fails as well
	block := v.request()
	for id := uint32(1); ; id += 2 {
		if f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block, EndHeaders: true}) != nil ||
			f.WriteData(id, true, make([]byte, 5)) != nil {
			return
		}
		v.hits.Add(1)
	}
}

// called makes a call that is to be refused with a code, and counts that.
func (v *victim) called(ctx context.Context, request *pb.PublishRequest, want codes.Code) {
	_, err := pb.NewRelayServiceClient(v.conn).Publish(ctx, request)
	switch status.Code(err) {
	case codes.OK:
		v.t.Errorf("a call was taken that is to be refused as %v", want)
	case want:
		v.hits.Add(1)
	default: // the attack is over, or the relay was busy
	}
}

func giantMessages(ctx context.Context, v *victim) {
	call := metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+v.token)
	events := []*pb.Event{{Mailbox: strings.Repeat("x", 8<<20)}}
	for ctx.Err() == nil {
		v.called(call, &pb.PublishRequest{Events: events}, codes.ResourceExhausted)
	}
}

// gzipBomb is a message as gRPC frames it, made once: a hundred times the same
// member, because an attack lasts no longer than packing a hundred megabytes.
var gzipBomb = sync.OnceValue(func() []byte {
	var member bytes.Buffer
	w := gzip.NewWriter(&member)
	_, _ = w.Write(make([]byte, 1<<20)) // into memory
	_ = w.Close()
	small := bytes.Repeat(member.Bytes(), 100)
	return append([]byte{1, 0, byte(len(small) >> 16), byte(len(small) >> 8), byte(len(small))}, small...)
})

// gzipBombs send a hundred kilobytes that stand for a hundred megabytes.
func gzipBombs(ctx context.Context, v *victim) {
	message := gzipBomb()
	block := v.request("grpc-encoding", "gzip")
	for ctx.Err() == nil {
		nc, f := v.raw(ctx)
		if nc == nil {
			continue
		}
		_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block, EndHeaders: true}) // what follows fails as well
		for rest := message; len(rest) > 0; rest = rest[min(len(rest), 16<<10):] {
			n := min(len(rest), 16<<10)
			_ = f.WriteData(1, n == len(rest), rest[:n])
		}
		v.refused(ctx, f)
		_ = nc.Close()
	}
}

// tokenFlood calls with a token whose signature is wrong.
func tokenFlood(ctx context.Context, v *victim) {
	forged := v.token[:len(v.token)-8] + "AAAAAAAA"
	call := metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+forged)
	for ctx.Err() == nil {
		v.called(call, &pb.PublishRequest{}, codes.Unauthenticated)
	}
}
