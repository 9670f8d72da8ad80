package wire

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"time"
)

// pair is a wire with one connection over it.
func pair(t *testing.T) (w *Wire, near, far net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	w, err = New("tcp", "127.0.0.1:0", func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", l.Addr().String())
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	if near, err = net.Dial("tcp", w.Address()); err != nil {
		t.Fatal(err)
	}
	if far, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = near.Close(), far.Close() })
	return w, near, far
}

func says(t *testing.T, from, to net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(from, text); err != nil {
		t.Fatal(err)
	}
	hears(t, to, text)
}

func hears(t *testing.T, to net.Conn, text string) {
	t.Helper()
	_ = to.SetReadDeadline(time.Now().Add(10 * time.Second)) // a socket takes one
	got := make([]byte, len(text))
	if _, err := io.ReadFull(to, got); err != nil || string(got) != text {
		t.Fatalf("got %q, %v, want %q", got, err, text)
	}
}

// silent wants nothing to come, for a moment: of the network there is no other
// way to see that.
func silent(t *testing.T, to net.Conn) {
	t.Helper()
	_ = to.SetReadDeadline(time.Now().Add(50 * time.Millisecond)) // as above
	if n, err := to.Read(make([]byte, 1)); n > 0 || errors.Is(err, io.EOF) {
		t.Fatalf("got %d bytes, %v, want nothing", n, err)
	}
}

func TestStallHoldsBack(t *testing.T) {
	w, near, far := pair(t)
	says(t, near, far, "up")
	says(t, far, near, "down")
	w.Set(StallUp)
	says(t, far, near, "down again")
	if _, err := io.WriteString(near, "late"); err != nil {
		t.Fatal(err)
	}
	silent(t, far)
	w.Set(Open)
	hears(t, far, "late")
}

func TestStallHidesTheEnd(t *testing.T) {
	w, near, far := pair(t)
	w.Set(Stall)
	if _, err := io.WriteString(near, "lost"); err != nil {
		t.Fatal(err)
	}
	_ = near.Close() // the far end must not hear of it
	silent(t, far)
	w.Set(Open)
	_ = far.SetReadDeadline(time.Now().Add(10 * time.Second)) // as above
	if n, err := far.Read(make([]byte, 1)); n > 0 || err == nil {
		t.Errorf("got %d bytes, %v, want the end without what was lost", n, err)
	}
}

func TestRefuseResets(t *testing.T) {
	w, near, far := pair(t)
	w.Set(Refuse)
	for _, c := range []net.Conn{near, far} {
		_ = c.SetReadDeadline(time.Now().Add(10 * time.Second)) // as above
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Error("a connection goes on")
		}
	}
	if c, err := net.Dial("tcp", w.Address()); err == nil {
		_ = c.SetReadDeadline(time.Now().Add(10 * time.Second)) // as above
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Error("a new connection is served")
		}
		_ = c.Close()
	}
}
