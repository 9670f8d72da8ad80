package process

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/pprof"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/net/netutil"
)

// Ops is what the ops listener tells.
type Ops struct {
	Title   string // of the start page
	Metrics *prometheus.Registry
	Own     prometheus.Registerer // for promhttp's metrics of itself
	// Ready says why the process would not accept work; empty: it would, and
	// detail tells more.
	Ready    func(context.Context) (reason, detail string)
	Profiles bool                        // for loopback only
	Beside   map[string]http.HandlerFunc // what is served at other paths
}

// Handler serves metrics, health and, where allowed, profiles.
func (o Ops) Handler() http.Handler {
	mux := http.NewServeMux()
	paths := append([]string{"/metrics", "/healthz", "/readyz"}, slices.Sorted(maps.Keys(o.Beside))...)
	if o.Profiles {
		paths = append(paths, "/debug/pprof/")
	}
	mux.Handle("GET /metrics", promhttp.HandlerFor(o.Metrics, promhttp.HandlerOpts{Registry: o.Own, EnableOpenMetrics: true}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { Answer(w, http.StatusOK, "alive") })
	mux.HandleFunc("GET /readyz", o.readyz)
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		Answer(w, http.StatusOK, o.Title+"\n"+strings.Join(paths, "\n"))
	})
	for path, handler := range o.Beside {
		mux.HandleFunc("GET "+path, handler)
	}
	if o.Profiles {
		mux.HandleFunc("/debug/pprof/", pprof.Index)
		mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
		mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	}
	return mux
}

func (o Ops) readyz(w http.ResponseWriter, r *http.Request) {
	reason, detail := o.Ready(r.Context())
	if reason != "" {
		Answer(w, http.StatusServiceUnavailable, "not ready: "+reason)
		return
	}
	Answer(w, http.StatusOK, "ready"+detail)
}

// Answer writes a line of text.
func Answer(w http.ResponseWriter, code int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	_, _ = fmt.Fprintln(w, text) // the caller is gone; nobody is left to tell
}

// mostConnections is how many a listener has open at once by default. Ours.
const mostConnections = 512

// writeTimeout is how long a peer may take to read what is written at once. Ours:
// scrapers and probes wait for less.
const writeTimeout = 30 * time.Second

// HTTP is what a listener serves, and to how many.
type HTTP struct {
	Handler http.Handler
	TLS     *tls.Config // nil: none
	Logger  *slog.Logger
	// Connections is how many are open at once; those beyond wait for a place. 0:
	// 512.
	Connections int
	// Public: anybody may come. Connections of one address are few, and one asks
	// for one thing, so that what is asked is bounded with them; see guests.
	Public bool
	// Refused counts those that were turned away from a public listener. nil: nobody does.
	Refused prometheus.Counter
	// Live: answers last until ctx is done, as a page's stream of events does.
	Live bool
}

// readListener accepts connections whose peers have to read.
type readListener struct{ net.Listener }

func (l readListener) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return readConn{nc}, nil
}

// readConn ends a write that its peer does not take within writeTimeout. An answer
// may take longer: a profile does.
type readConn struct{ net.Conn }

func (c readConn) Write(p []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}

// Serve serves until ctx is done; answers under way get a moment. The
// connections of those that take longer are cut, and nobody waits until their
// handlers notice.
func (h HTTP) Serve(ctx context.Context, l net.Listener) error {
	server := &http.Server{
		Handler: h.Handler, TLSConfig: h.TLS, MaxHeaderBytes: 16 << 10,
		ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, IdleTimeout: time.Minute,
		ErrorLog: slog.NewLogLogger(h.Logger.Handler(), slog.LevelDebug),
	}
	if h.Live {
		server.BaseContext = func(net.Listener) context.Context { return ctx }
	}
	address := l.Addr()
	l = tellingListener{l, h.Logger}
	if h.Public {
		l = &guests{Listener: l, refused: h.Refused, known: map[netip.Addr]*guest{}}
		server.SetKeepAlivesEnabled(false)
		server.TLSNextProto = map[string]func(*http.Server, *tls.Conn, http.Handler){} // not HTTP/2, where one connection asks for much
	}
	l = netutil.LimitListener(readListener{l}, cmp.Or(h.Connections, mostConnections))
	ended := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() {
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		err := server.Shutdown(last)
		if errors.Is(err, context.DeadlineExceeded) {
			err = server.Close() // a profile or an idle reader; they may be cut
		}
		ended <- err
	})
	serve := func() error { return server.Serve(l) }
	if h.TLS != nil {
		serve = func() error { return server.ServeTLS(l, "", "") }
	}
	err := serve()
	if stop() || !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve %s: %w", address, err)
	}
	return <-ended
}
