package process

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

func TestProfilesAreForLoopbackOnly(t *testing.T) {
	for profiles, want := range map[bool]int{true: http.StatusOK, false: http.StatusNotFound} {
		w := httptest.NewRecorder()
		ops := Ops{Metrics: prometheus.NewRegistry(), Own: prometheus.NewRegistry(), Profiles: profiles}
		ops.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/debug/pprof/cmdline", nil))
		if w.Code != want {
			t.Errorf("profiles %v: %d, want %d", profiles, w.Code, want)
		}
	}
}

// oneConn is a listener that accepts one connection.
type oneConn struct {
	conns chan net.Conn
	gone  chan struct{}
}

func (l *oneConn) Accept() (net.Conn, error) {
	select {
	case nc := <-l.conns:
		return nc, nil
	case <-l.gone:
		return nil, net.ErrClosed
	}
}

func (l *oneConn) Close() error {
	select {
	case <-l.gone:
	default:
		close(l.gone)
	}
	return nil
}

func (l *oneConn) Addr() net.Addr { return &net.TCPAddr{} }

// TestReaderThatDoesNotReadIsCut has a scraper ask and never take the answer.
func TestReaderThatDoesNotReadIsCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := net.Pipe()
		l := &oneConn{conns: make(chan net.Conn, 1), gone: make(chan struct{})}
		l.conns <- server
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		var took time.Duration
		go func() { // ends with ctx
			done <- HTTP{Logger: slog.New(slog.DiscardHandler), Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				began := time.Now()
				_, _ = w.Write(make([]byte, 1<<20)) // that it is cut is what is tested
				took = time.Since(began)
			})}.Serve(ctx, l)
		}()
		if _, err := io.WriteString(client, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(writeTimeout + time.Second)
		synctest.Wait()
		if took != writeTimeout {
			t.Errorf("the answer was held for %v, want %v", took, writeTimeout)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		_ = client.Close()
	})
}
