package ingest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"badgerelay/auth"
)

// TestConnectionLimits opens one connection more than each limit allows.
func TestConnectionLimits(t *testing.T) {
	for _, test := range []struct {
		reason         string
		total, address int
	}{{refusedTotal, 2, -1}, {refusedAddress, -1, 2}} {
		t.Run(test.reason, func(t *testing.T) {
			metrics := prometheus.NewRegistry()
			k, err := newConnLimiter(&Config{MaxConnections: test.total, MaxAddressConnections: test.address, Registerer: metrics})
			if err != nil {
				t.Fatal(err)
			}
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			accepted := make(chan net.Conn, 10)
			go func() { // ends with the listener
				for guarded := k.limit(l); ; {
					nc, err := guarded.Accept()
					if err != nil {
						return
					}
					accepted <- nc
				}
			}()
			defer l.Close()
			first, second := connect(t, l), connect(t, l)
			defer first.Close()
			defer second.Close()
			inside := <-accepted
			defer (<-accepted).Close()
			third := connect(t, l)
			defer third.Close()
			if _, err := third.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
				t.Errorf("the connection beyond the limit got %v, want it closed", err)
			}
			if n, _ := sample(t, metrics, "ingest_connections_refused_total", map[string]string{"reason": test.reason}); n != 1 {
				t.Errorf("%v refused for %s, want 1", n, test.reason)
			}
			inside.Close()
			inside.Close() // gives back one place, not two
			fourth := connect(t, l)
			defer fourth.Close()
			defer (<-accepted).Close()
			if n, _ := sample(t, metrics, "ingest_connections", nil); n != 2 {
				t.Errorf("%v connections open, want 2", n)
			}
		})
	}
}

func connect(t *testing.T, l net.Listener) net.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	nc, err := new(net.Dialer).DialContext(ctx, "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return nc
}

// TestAddressOf has the addresses of one customer count as one.
func TestAddressOf(t *testing.T) {
	for text, want := range map[string]string{
		"192.0.2.7:1": "192.0.2.7", "[::ffff:192.0.2.7]:1": "192.0.2.7",
		"[2001:db8:1:2:3:4:5:6]:1": "2001:db8:1:2::", "[fe80::1%eth0]:1": "fe80::", "bufconn": "invalid IP",
	} {
		if got := addressOf(addressed{address: text}.RemoteAddr()).String(); got != want {
			t.Errorf("addressOf(%s) = %s, want %s", text, got, want)
		}
	}
}

// addressed is a connection from some address.
type addressed struct {
	net.Conn
	address string
}

func (a addressed) RemoteAddr() net.Addr { return a }
func (a addressed) Network() string      { return "tcp" }
func (a addressed) String() string       { return a.address }

// addressedListener accepts connections as from some address.
type addressedListener struct {
	net.Listener
	address string
}

// Accept implements net.Listener.
func (l addressedListener) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	return addressed{nc, l.address}, err
}

// TestSiteBehindOneAddress has a hundred agents come from one address, each with a
// standby, all with a connection for their stream and one for their watch, and all
// of them come back before what they left is noticed: the limits that nobody has set
// let them in.
func TestSiteBehindOneAddress(t *testing.T) {
	k, err := newConnLimiter(&Config{})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	const connections = 100 * 2 * 2
	var site []*limitedConn
	for range 2 * connections {
		c := &limitedConn{Conn: sink{}, limiter: k, addr: netip.MustParseAddr("192.0.2.1"), gone: make(chan struct{})}
		if reason, late := k.enter(c, now); reason != "" || late != nil {
			t.Fatalf("connection %d is refused: %s", len(site), reason)
		}
		if wait := c.turn(now); wait != 0 {
			t.Fatalf("connection %d has to wait for %v", len(site), wait)
		}
		c.begun()
		c.accept()
		site = append(site, c)
	}
	for _, c := range site {
		_ = c.Close() // a sink closes
	}
	if k.at(site[0].addr, now).slowed(time.Now()) {
		t.Error("the site's address is slowed when all have left")
	}
	m, err := newMetrics(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	sessions := newSessions(&Config{}, m)
	for i := range connections { // of streams, as many as of watches
		s, err := sessions.add(sessionOpening, &auth.Principal{OrganizationID: 1}, 0)
		if err == nil {
			err = sessions.identify(s, agentProcess{fmt.Sprint("agent ", i), "1"})
		}
		if err != nil {
			t.Fatalf("stream %d of the site's organization is refused: %v", i, err)
		}
	}
}

// TestStreamEndsBeforeItsHello has a stream's reader find out whose it is when the stream
// has ended: it is counted no more, alone and beside another of the organization.
func TestStreamEndsBeforeItsHello(t *testing.T) {
	m, err := newMetrics(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	sessions := newSessions(&Config{}, m)
	add := func() *session {
		s, err := sessions.add(sessionOpening, &auth.Principal{OrganizationID: 1}, 0)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	for others := range 2 {
		for range others {
			add()
		}
		s := add()
		sessions.remove(s)
		if err := sessions.identify(s, agentProcess{"agent", "1"}); err == nil {
			t.Error("a stream that has ended is let in")
		}
		if opening, streams := sessions.count(1, sessionOpening), sessions.total(sessionStream); opening != others || streams != 0 {
			t.Errorf("%d are opening and %d streams are open, want %d and none", opening, streams, others)
		}
	}
}
