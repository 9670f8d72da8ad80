package apnstest

import (
	"context"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

// listen runs s on a real socket until the test ends.
func listen(t testing.TB, s *Simulator) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, l) }() // ends with ctx; waited for below
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("run: got %v, want none", err)
		}
	})
	return l.Addr().String()
}

func dialSocket(t testing.TB, addr string) *client {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	c, err := handshake(t, nc, nil)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestSocket(t *testing.T) {
	s := newSim(t, nil)
	addr := listen(t, s)
	c := dialSocket(t, addr)
	defer c.close()
	if got := c.push(badgeOf3); got != "200" {
		t.Errorf("push: got %s, want 200", got)
	}
	// With the second answer the client has acknowledged the settings that came
	// after the first. It must not be writing when the reset comes: the kernel
	// tells of a reset once, and would tell the writer instead of the reader.
	if got := c.push(badgeOf3); got != "200" {
		t.Errorf("second push: got %s, want 200", got)
	}
	s.Trigger(FaultReset)
	<-c.ended
	if c.err == nil || !strings.Contains(c.err.Error(), "reset") {
		t.Errorf("after reset: got %v, want a TCP reset", c.err)
	}
	other := dialSocket(t, addr)
	defer other.close()
	other.event("settings 1")
	other.open(false)
	other.open(false)
	if got := other.event("goaway"); !strings.HasSuffix(got, overLimitText) {
		t.Errorf("over the limit: got %q, want GOAWAY to arrive before the end", got)
	}
}

// TestStress lets several clients push while faults of all kinds strike, and
// devices come and go.
func TestStress(t *testing.T) {
	s := newSim(t, func(c *Config) {
		c.Environment, c.AcceptUnknownDevices = Sandbox, true
		c.ConnectsPerMinute, c.MaxDevicePerSecond, c.MaxDeviceInFlight = -1, -1, -1
		c.ReorderRate, c.PowerDelay = 0.1, time.Millisecond
		c.Faults = LowRate()
		c.Faults.Latency = Latency{Min: time.Microsecond, Jitter: time.Millisecond}
		for k := range c.Faults.Rates {
			c.Faults.Rates[k] = 0.01
		}
		c.Faults.Rates[FaultStallStream], c.Faults.Rates[FaultStallSocket] = 0, 0
		c.Faults.Hold, c.Faults.Late = 2*time.Millisecond, 2*time.Millisecond
	})
	addr := listen(t, s)
	defer s.Watch(func(d Device) { s.Device(d.Token) })()
	var wg sync.WaitGroup
	for n := range 4 {
		wg.Go(func() {
			for range 15 {
				stressOnce(t, s, addr, n)
			}
		})
	}
	wg.Wait()
	st := s.Stats()
	if st.Accepted == 0 || len(st.Injected) < 10 {
		t.Errorf("got %+v, want pushes accepted and many kinds of faults", st)
	}
}

// stressOnce pushes on one connection until it ends or fifty are sent.
func stressOnce(t *testing.T, s *Simulator, addr string, n int) {
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		return
	}
	c, err := handshake(t, nc, nil)
	if err != nil {
		return // a fault of connects
	}
	defer c.close()
	for i := range 50 {
		id := c.send(badgeOf3, ":path", "/3/device/"+phone(n*100+i).Hex(), "apns-priority", "5")
		if i == 0 {
			c.until(func() bool { return c.answer[id] != nil && c.answer[id].done })
		}
		switch i % 10 {
		case 3:
			s.SetOnline(phone(n*100+i-1), false)
		case 6:
			s.Unregister(phone(n*100+i-1), time.Now())
		case 9:
			s.RemoveDevice(phone(n*100 + i - 1))
		}
		select {
		case <-c.ended:
			return
		default:
		}
	}
	id := c.next - 2
	done := make(chan struct{})
	timer := time.AfterFunc(100*time.Millisecond, func() { close(done) })
	defer timer.Stop()
	for {
		if a := c.peek(id); a.done {
			return
		}
		select {
		case <-c.moved:
		case <-c.ended:
			return
		case <-done:
			return
		}
	}
}

// TestBySource has two clients push to one device at once, which neither can
// know of the other.
func TestBySource(t *testing.T) {
	for _, bySource := range []bool{true, false} {
		s := newSim(t, func(c *Config) {
			c.BySource = bySource
			c.Faults = Faults{Latency: Latency{Min: 100 * time.Millisecond}}
		})
		addr := listen(t, s)
		var clients []*client
		for _, ip := range []net.IP{net.IPv4(127, 0, 0, 2), net.IPv4(127, 0, 0, 3)} {
			d := net.Dialer{LocalAddr: &net.TCPAddr{IP: ip}}
			nc, err := d.DialContext(t.Context(), "tcp", addr)
			if err != nil && os.Getenv("CI") != "" {
				t.Fatal(err)
			}
			if err != nil {
				t.Skip("loopback has one address: ", err)
			}
			c, err := handshake(t, nc, nil)
			if err != nil {
				t.Fatal(err)
			}
			clients = append(clients, c)
		}
		var ids []uint32
		for _, c := range clients {
			ids = append(ids, c.send(badgeOf3))
		}
		for i, c := range clients {
			if a := c.wait(ids[i]); a.status != "200" {
				t.Errorf("push %d: got %s, want 200", i, a.status)
			}
			c.close()
		}
		want := "two_in_flight:1"
		if bySource {
			want = ""
		}
		if got := clientFaultsOf(s); got != want {
			t.Errorf("by source %v: client faults %q, want %q", bySource, got, want)
		}
	}
}
