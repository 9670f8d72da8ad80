package apns_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"badgerelay/apns"
	"badgerelay/apns/apnstest"
)

// network is a host's addresses, some of which can't be reached.
type network struct {
	sim *apnstest.Simulator

	mu     sync.Mutex // guards what follows
	addrs  []netip.Addr
	dead   map[netip.Addr]func(context.Context) (net.Conn, error)
	dialed []netip.Addr
	noName bool // the name server is away
}

// newNetwork has so many addresses of each family.
func newNetwork(t *testing.T, v4, v6 int) *network {
	n := &network{sim: newSimulator(t, apnstest.Config{StreamLimit: 1, Faults: apnstest.Faults{Latency: apnstest.Latency{Min: 200 * time.Millisecond}}}),
		dead: map[netip.Addr]func(context.Context) (net.Conn, error){}}
	for i := range v4 {
		n.addrs = append(n.addrs, netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}))
	}
	for i := range v6 {
		n.addrs = append(n.addrs, netip.MustParseAddr(fmt.Sprintf("2001:db8::%d", i+1)))
	}
	return n
}

// blackHole takes no connection, refuse says so, mute takes one and never
// answers, noRoute is a machine without IPv6.
func blackHole(ctx context.Context) (net.Conn, error) { <-ctx.Done(); return nil, ctx.Err() }
func refuse(context.Context) (net.Conn, error)        { return nil, syscall.ECONNREFUSED }
func noRoute(context.Context) (net.Conn, error)       { return nil, syscall.ENETUNREACH }
func mute(context.Context) (net.Conn, error) {
	client, _ := net.Pipe()
	return client, nil
}

// kill has addresses be dead in turn, as kinds say.
func (n *network) kill(of func(netip.Addr) bool, kinds ...func(context.Context) (net.Conn, error)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	i := 0
	for _, addr := range n.addrs {
		if of(addr) {
			n.dead[addr] = kinds[i%len(kinds)]
			i++
		}
	}
}

func (n *network) lookup(ctx context.Context, _ string) ([]netip.Addr, error) {
	n.mu.Lock()
	noName := n.noName
	n.mu.Unlock()
	if noName {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return n.addrs, nil
}

func (n *network) dial(ctx context.Context, network, at string) (net.Conn, error) {
	addr := netip.MustParseAddrPort(at).Addr()
	n.mu.Lock()
	n.dialed = append(n.dialed, addr)
	dead := n.dead[addr]
	n.mu.Unlock()
	if dead != nil {
		return dead(ctx)
	}
	return n.sim.Dial(ctx, network, at)
}

// tries returns how often addresses of a kind were dialed, and forgets that.
func (n *network) tries(dead bool) (count int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, addr := range n.dialed {
		if (n.dead[addr] != nil) == dead {
			count++
		}
	}
	n.dialed = nil
	return count
}

// TestDeadAddresses has a part of the host's addresses be dead: the first
// connection comes within half a second, the pool reaches its size, nothing
// counts as failed, and the dead ones are not tried again while they are
// remembered.
func TestDeadAddresses(t *testing.T) {
	testKeys()
	testAuthority()
	for _, test := range []struct {
		name   string
		v4, v6 int
		dead   func(netip.Addr) bool
		kinds  []func(context.Context) (net.Conn, error)
	}{
		{"no route for IPv6", 4, 8, netip.Addr.Is6, []func(context.Context) (net.Conn, error){noRoute}},
		{"IPv6 is a black hole", 4, 8, netip.Addr.Is6, []func(context.Context) (net.Conn, error){blackHole}},
		{"IPv4 is a black hole", 8, 4, netip.Addr.Is4, []func(context.Context) (net.Conn, error){blackHole}},
		{"three of four are black holes", 4, 0, func(a netip.Addr) bool { return a.As4()[3] > 0 }, []func(context.Context) (net.Conn, error){blackHole}},
		{"most refuse", 8, 0, func(a netip.Addr) bool { return a.As4()[3] > 0 }, []func(context.Context) (net.Conn, error){refuse}},
		{"IPv6 takes connections and is mute", 4, 4, netip.Addr.Is6, []func(context.Context) (net.Conn, error){mute}},
		{"all but one of each kind", 1, 3, netip.Addr.Is6, []func(context.Context) (net.Conn, error){refuse, blackHole, noRoute}},
		{"none", 2, 2, func(netip.Addr) bool { return false }, nil},
	} {
		for _, engine := range []apns.Engine{apns.EngineNative, apns.EngineReference} {
			t.Run(test.name+" "+string(engine), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					n := newNetwork(t, test.v4, test.v6)
					n.kill(test.dead, test.kinds...)
					f := startPool(t, apns.Config{Engine: engine, MaxConns: 4, RootCAs: testAuthority().Pool(), Lookup: n.lookup, Dial: n.dial})
					time.Sleep(500 * time.Millisecond)
					synctest.Wait()
					if s := f.pool.Stats(); s.Connections != 1 {
						t.Errorf("after half a second %d connections, want the first", s.Connections)
					}
					f.put(0, 300)
					time.Sleep(20 * time.Second)
					synctest.Wait()
					s := f.pool.Stats()
					if s.Connections != 4 || s.ConnectsFailed != 0 {
						t.Errorf("%d connections and %d failed, want 4 and none: %v", s.Connections, s.ConnectsFailed, s.LastError)
					}
					if dead := n.tries(true); dead > len(n.dead) {
						t.Errorf("%d tries of %d dead addresses, want each once at most", dead, len(n.dead))
					}
				})
			})
		}
	}
}

// TestDeadAddressesAreTriedAgain has every address be dead, and one come back.
func TestDeadAddressesAreTriedAgain(t *testing.T) {
	testKeys()
	testAuthority()
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, 2, 2)
		n.kill(func(netip.Addr) bool { return true }, blackHole, refuse)
		f := startPool(t, apns.Config{RootCAs: testAuthority().Pool(), Lookup: n.lookup, Dial: n.dial})
		f.put(0, 1)
		time.Sleep(time.Minute)
		synctest.Wait()
		if s := f.pool.Stats(); s.State != apns.StateOutage || s.ConnectsFailed == 0 {
			t.Errorf("without an address: %+v, want an outage", s)
		}
		n.mu.Lock()
		delete(n.dead, n.addrs[3])
		n.mu.Unlock()
		time.Sleep(90 * time.Second) // the longest pause, and an attempt
		synctest.Wait()
		if f.accepted() != 1 {
			t.Errorf("with one address again: %d accepted, want 1; %+v", f.accepted(), f.pool.Stats())
		}
	})
}

// TestNoNameServer has the name server go away: a connection that is opened then
// goes to where the name led.
func TestNoNameServer(t *testing.T) {
	testKeys()
	testAuthority()
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, 2, 0)
		f := startPool(t, apns.Config{RootCAs: testAuthority().Pool(), Lookup: n.lookup, Dial: n.dial, MaxConns: 2})
		time.Sleep(time.Second)
		n.mu.Lock()
		n.noName = true
		n.mu.Unlock()
		f.put(0, 50)
		time.Sleep(20 * time.Second)
		synctest.Wait()
		if s := f.pool.Stats(); s.Connections != 2 || s.ConnectsFailed != 0 || f.accepted() != 50 {
			t.Errorf("%d connections, %d failed, %d accepted; want 2, none and all", s.Connections, s.ConnectsFailed, f.accepted())
		}
	})
}

// TestDescriptorsAtTheirLimit has this machine be at fault: no address is.
func TestDescriptorsAtTheirLimit(t *testing.T) {
	testKeys()
	testAuthority()
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, 4, 0)
		n.kill(func(netip.Addr) bool { return true }, func(context.Context) (net.Conn, error) {
			return nil, fmt.Errorf("dial: %w", syscall.EMFILE)
		})
		f := startPool(t, apns.Config{RootCAs: testAuthority().Pool(), Lookup: n.lookup, Dial: n.dial})
		f.put(0, 1)
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		failed := f.pool.Stats().ConnectsFailed
		if tries := n.tries(true); int64(tries) != failed || failed > 30 {
			t.Errorf("%d tries in %d attempts of ten minutes, want one in each, with growing pauses", tries, failed)
		}
		if err := f.pool.Stats().LastError; !errors.Is(err, syscall.EMFILE) {
			t.Errorf("the error is %v", err)
		}
		n.mu.Lock()
		clear(n.dead)
		n.mu.Unlock()
		time.Sleep(61 * time.Second)
		synctest.Wait()
		if f.accepted() != 1 {
			t.Errorf("%d accepted when there are descriptors again, want 1", f.accepted())
		}
	})
}
