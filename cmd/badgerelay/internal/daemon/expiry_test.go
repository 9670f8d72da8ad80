package daemon

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"badgerelay/cmd/internal/process"
)

// lockedBuffer is a log that one goroutine writes and another reads.
type lockedBuffer struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

// Write implements io.Writer.
func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// take returns what was written since the last time.
func (l *lockedBuffer) take() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.b.Reset()
	return l.b.String()
}

func TestEndsAreSpokenOfOnceAtEachMark(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b lockedBuffer
		d := &daemon{Daemon: process.Daemon{Log: slog.New(slog.NewTextHandler(&b, nil))}}
		show := func(left time.Duration) {
			d.certs.Show("listen", &tls.Certificate{Leaf: &x509.Certificate{NotAfter: time.Now().Add(left)}})
		}
		show(32 * day)
		ctx, cancel := context.WithCancel(t.Context())
		go func() { _ = d.watchEnds(ctx) }() // ends with ctx
		defer synctest.Wait()
		defer cancel()
		want := func(after time.Duration, part string) {
			t.Helper()
			time.Sleep(after)
			synctest.Wait()
			got := b.take()
			if part == "" && got != "" || strings.Count(got, "\n") > 1 || !strings.Contains(got, part) {
				t.Errorf("after %s the log says %q, want %q", after, got, part)
			}
		}
		want(time.Minute, "")
		want(2*day-time.Hour, "")
		want(time.Hour, "level=WARN msg=\"certificate is near its end; put a new one in its place and send SIGHUP\" certificate=\"listener listen\"")
		want(22*day, "")
		want(day, "days_left=7")
		want(6*day, "ends within a day")
		want(day, "has ended")
		want(3*day, "")
		show(400 * day)
		want(day, "")
		show(20 * day)
		want(time.Hour, "days_left=19")
	})
}
