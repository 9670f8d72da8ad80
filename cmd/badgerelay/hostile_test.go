package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	pb "badgerelay/proto/badgerelay/v1"
)

// attackTime is how long each attack goes on.
const attackTime = time.Second

// attack is what a hostile client does to a relay until ctx is done.
type attack struct {
	name    string
	clients int // how many do it at once
	act     func(ctx context.Context, v *victim)
	metric  string // the series that has to move: its name, and what its labels hold
}

// victim is a relay as its attackers see it.
type victim struct {
	t       *testing.T
	address string
	trust   *tls.Config
	from    net.Addr // where attackers connect from; nil: anywhere
	token   string   // of an enrolled organization: some attackers are agents
	conn    *grpc.ClientConn
	hits    atomic.Int64 // connections, frames or calls that got through to it
}

// The series that count what becomes of an attack.
const (
	connections = "badgerelay_ingest_connections_refused_total reason="
	transport   = "badgerelay_ingest_transport_refusals_total reason="
)

var attacks = []attack{
	{"rapid reset", 1, rapidReset, transport + `"flood_of_frames"`}, // with a token: without one see TestStrangersCostLittle
	{"flood of PINGs", 4, writeForever(func(f *http2.Framer) error { return f.WritePing(false, [8]byte{}) }), transport + `"too_many_pings"`},
	{"flood of SETTINGS", 4, writeForever(func(f *http2.Framer) error { return f.WriteSettings() }), transport + `"too_many_settings"`},
	{"endless metadata", 4, endlessMetadata, transport + `"protocol_error"`},
	{"giant metadata", 4, giantMetadata, transport + `"protocol_error"`},
	{"HPACK bombs", 4, hpackBombs, transport + `"metadata_too_large"`},
	{"thousand connections that say nothing", 1, silentConnections, connections + `"address"`},
	{"handshakes that are none", 4, badHandshakes, connections + `"handshake"`},
	{"TLS without HTTP/2", 4, badPrefaces, transport + `"preface"`},
	{"slow writers", 4, slowWriters, transport + `"too_many_streams"`},
	{"slow readers", 4, slowReaders, transport + `"flood_without_token"`}, // on a slow machine too_many_streams first
	{"giant messages", 4, giantMessages, transport + `"message_too_large"`},
	{"gzip bombs", 4, packed(gzipBomb), transport + `"message_too_large"`},
	{"gzip that is none", 4, packed(func() []byte { return []byte{1, 0, 0, 0, 3, 'z', 'i', 'p'} }), transport + `"message_unreadable"`},
	{"methods that are not served", 4, unknownMethods, transport + `"unknown_method"`},
	{"flood of refused tokens", 8, tokenFlood, "badgerelay_token_refusals_total"},
}

// TestHostileClients has each attack go on while an agent that behaves
// publishes one count after the other, and looks at what it costs the agent,
// in memory, and whether an operator sees it.
func TestHostileClients(t *testing.T) {
	const mailboxes = 400
	r, shared := newVictim(t)
	for i := range mailboxes {
		r.subscribe(t, fmt.Sprintf("mailbox-%d", i), i)
	}
	for i, a := range attacks {
		t.Run(a.name, func(t *testing.T) {
			// Each from an address of its own: what one has done slows it.
			from := &net.TCPAddr{IP: net.IPv4(127, 0, 2, byte(1+i))}
			v := &victim{t: t, address: r.address, token: r.token(t), conn: r.dialFrom(t, from), from: from, trust: shared.trust}
			before := r.metric(t, a.metric)
			ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
			defer cancel()
			var wg sync.WaitGroup
			for range a.clients {
				wg.Go(func() { a.act(ctx, v) }) // ends with ctx
			}
			beside, over := context.WithTimeout(ctx, attackTime)
			defer over()
			times, peak := r.behave(beside, t, mailboxes)
			for r.metric(t, a.metric) <= before && ctx.Err() == nil {
				time.Sleep(50 * time.Millisecond) // a slow machine needs longer to exceed a rate
			}
			cancel()
			wg.Wait()
			if r.metric(t, a.metric) <= before {
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

// newVictim starts a relay with limits that attackers reach.
func newVictim(t *testing.T) (*enrolled, *victim) {
	t.Helper()
	r := startRelayWith(t, func(files) string { return "limits: {connections_per_address: 300, calls_per_second: 100000}\n" })
	trust := &tls.Config{RootCAs: roots(t, r.caFile), NextProtos: []string{"h2"}, MinVersion: tls.VersionTLS12}
	return r, &victim{t: t, address: r.address, token: r.token(t), trust: trust}
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
		within, cancel := context.WithTimeout(call, testTimeout)
		n := len(times)
		answer, err := relay.Publish(within, &pb.PublishRequest{AgentId: "hostile", Events: []*pb.Event{
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
	return metricAt(t, r.Ops, series)
}

// metricAt is metric of the relay with that ops listener.
func metricAt(t *testing.T, ops, series string) (sum float64) {
	t.Helper()
	name, labels, _ := strings.Cut(series, " ")
	_, body := get(t, "http://"+ops+"/metrics")
	for line := range strings.Lines(body) {
		var value float64
		i := strings.LastIndexByte(line, ' ')
		if strings.HasPrefix(line, name) && strings.Contains(line, labels) && i > 0 {
			if _, err := fmt.Sscan(line[i:], &value); err == nil {
				sum += value
			}
		}
	}
	return sum
}

// TestThousandsOfIdleConnections keeps two thousand connections that have begun
// HTTP/2 and say nothing more, from eight addresses, and looks at what each
// costs, and whether an agent that behaves notices.
func TestThousandsOfIdleConnections(t *testing.T) {
	const connections, addresses, mailboxes = 2000, 8, 400
	r, v := newVictim(t)
	for i := range mailboxes {
		r.subscribe(t, fmt.Sprintf("mailbox-%d", i), i)
	}
	before := memory()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wg sync.WaitGroup
	for a := range addresses {
		wg.Go(func() { // ends when its connections are there
			own := &victim{t: t, address: v.address, trust: v.trust, from: &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(1+a))}}
			for range connections / addresses {
				nc, f := own.raw(ctx)
				if nc == nil {
					t.Errorf("a connection from %v was refused", own.from)
					return
				}
				go answerPings(f) // ends with ctx
			}
		})
	}
	wg.Wait()
	if n := r.metric(t, "badgerelay_ingest_connections "); n < connections {
		t.Errorf("%v connections are open, want %d", n, connections)
	}
	each := (memory() - before) / connections
	within, stop := context.WithTimeout(t.Context(), attackTime)
	defer stop()
	times, _ := r.behave(within, t, mailboxes)
	slices.Sort(times)
	t.Logf("%d idle connections, %d KB each with their clients; the agent beside: %d counts, median %v, worst %v", connections, each>>10,
		len(times), times[len(times)/2].Round(10*time.Microsecond), times[len(times)-1].Round(10*time.Microsecond))
	if each > 256<<10 {
		t.Errorf("an idle connection costs %d KB", each>>10)
	}
}

// memory is what the heap and the stacks hold.
func memory() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}
