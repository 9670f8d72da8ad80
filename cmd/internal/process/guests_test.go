package process

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	dto "github.com/prometheus/client_model/go"
)

// TestGuests holds addresses to what may come from each.
func TestGuests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &guests{known: map[netip.Addr]*guest{}}
		here, there := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
		come := func(address netip.Addr, n int) (came int) {
			for range n {
				if g.enter(address, time.Now()) {
					came++
				}
			}
			return came
		}
		if n := come(here, 100); n != guestConnections {
			t.Errorf("%d of one address are open at once, want %d", n, guestConnections)
		}
		if n := come(there, 1); n != 1 {
			t.Error("another address is held to the first one's")
		}
		for range guestConnections {
			g.leave(here)
		}
		g.leave(there)
		visits := guestConnections
		for g.enter(here, time.Now()) {
			g.leave(here)
			visits++
		}
		if visits != guestBurst {
			t.Errorf("%d came from one address at once, want %d", visits, guestBurst)
		}
		time.Sleep(time.Second/guestRate - time.Millisecond)
		if come(here, 1) != 0 {
			t.Error("one more came a millisecond early")
		}
		time.Sleep(time.Millisecond)
		if come(here, 2) != 1 {
			t.Error("after a tenth of a second there is room for one, and one only")
		}
		g.leave(here)
		time.Sleep(time.Minute)
		for range 3 {
			come(there, 1)
		}
		if len(g.known) != 1 {
			t.Errorf("%d addresses are remembered, want the one that is here", len(g.known))
		}
	})
}

func TestOriginOfGuests(t *testing.T) {
	for text, want := range map[string]string{
		"192.0.2.1:99": "192.0.2.1", "[::ffff:192.0.2.1]:99": "192.0.2.1",
		"[2001:db8:1:2:3:4:5:6]:99": "2001:db8:1:2::", "[fe80::1%eth0]:1": "fe80::", "@": "invalid IP",
	} {
		if got := origin(text2addr(text)).String(); got != want {
			t.Errorf("%s counts as %s, want %s", text, got, want)
		}
	}
}

type text2addr string

func (text2addr) Network() string  { return "tcp" }
func (a text2addr) String() string { return string(a) }

// TestPublicListener has guests ask for more than one thing, in both versions of
// HTTP, and be too many.
func TestPublicListener(t *testing.T) {
	certified := httptest.NewUnstartedServer(nil)
	certified.StartTLS()
	certificate := certified.TLS.Certificates[0]
	certified.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	refused := RefusedGuests()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { // ends with ctx
		done <- HTTP{
			Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { Answer(w, http.StatusOK, "document") }),
			TLS:     &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12},
			Logger:  slog.New(slog.DiscardHandler), Public: true, Refused: refused,
		}.Serve(ctx, l)
	}()
	visit := func(from net.IP) error {
		dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: from}}
		c, err := tls.DialWithDialer(dialer, "tcp", l.Addr().String(), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2", "http/1.1"}}) //nolint:gosec // who answers is not the question
		if err != nil {
			return err
		}
		defer c.Close()
		if p := c.ConnectionState().NegotiatedProtocol; p == "h2" {
			t.Error("HTTP/2 is spoken")
		}
		if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			return err
		}
		r := bufio.NewReader(c)
		answer, err := http.ReadResponse(r, nil)
		if err != nil {
			return err
		}
		defer answer.Body.Close()
		if body, err := io.ReadAll(answer.Body); err != nil || answer.StatusCode != http.StatusOK || string(body) != "document\n" {
			t.Errorf("got %s, %q, %v, want the document", answer.Status, body, err)
		}
		if second, err := r.ReadByte(); !errors.Is(err, io.EOF) {
			t.Errorf("a second answer on a connection begins with %q, %v; want none", second, err)
		}
		return nil
	}
	here, elsewhere := net.IPv4(127, 0, 0, 1), net.IPv4(127, 0, 0, 2)
	if err := visit(elsewhere); err != nil {
		t.Errorf("a guest who comes once: %v", err)
	}
	for range guestConnections {
		idle, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer idle.Close()
	}
	if visit(here) == nil {
		t.Errorf("one more is let in than %d at once from one address", guestConnections)
	}
	var counted dto.Metric
	if err := refused.Write(&counted); err != nil || counted.GetCounter().GetValue() != 1 {
		t.Errorf("%v refusals are counted, %v; want 1", counted.GetCounter().GetValue(), err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
