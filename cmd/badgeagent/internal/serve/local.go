package serve

import (
	"bytes"
	"context"
	"crypto/subtle"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"badgerelay/cmd/badgeagent/internal/config"
	"badgerelay/cmd/internal/process"
	"badgerelay/relay/agent/backend"
)

// Local is the listener for programs on this machine. What is mounted on it is
// reached over the unix socket by whoever may open that, and over TCP by whoever
// shows the token: as "Authorization: Bearer", or as the password of Basic for
// programs that only take a URL.
type Local struct {
	mux     *http.ServeMux
	secrets []*secret
	log     *slog.Logger
	refused prometheus.Counter
	warned  process.OnceAMinute

	networks []netip.Prefix // of callers on TCP; empty: all
	tls      *tls.Config    // for them; nil: they come without TLS
}

func newLocal(log *slog.Logger, r prometheus.Registerer) *Local {
	l := &Local{
		mux: http.NewServeMux(), log: log,
		refused: prometheus.NewCounter(prometheus.CounterOpts{Name: "local_requests_refused_total",
			Help: "Requests on the local listener without the token that they need."}),
	}
	r.MustRegister(l.refused)
	return l
}

// Handle mounts handler at pattern, for callers on the socket and, if tokenFile
// is not empty, for those on TCP who show the secret on its first line.
func (l *Local) Handle(pattern, tokenFile string, handler http.Handler) error {
	s := &secret{file: tokenFile}
	want, err := s.read()
	if err != nil {
		return err
	}
	s.want.Store(want)
	l.secrets = append(l.secrets, s)
	l.mux.Handle(pattern, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !onSocket(r) && !l.near(r) {
			l.refused.Inc()
			l.log.Log(r.Context(), l.level(), "local request refused: not from one of local.networks", "path", r.URL.Path, "peer", r.RemoteAddr)
			backend.Refuse(w, http.StatusForbidden, backend.CodeNetwork, "callers from this address are not served here: see local.networks")
			return
		}
		if !onSocket(r) && !s.shown(r) {
			l.refused.Inc()
			l.log.Log(r.Context(), l.level(), "local request refused", "path", r.URL.Path, "peer", r.RemoteAddr)
			w.Header().Set("WWW-Authenticate", "Bearer")
			backend.Refuse(w, http.StatusUnauthorized, backend.CodeToken, "a token is needed here: Authorization: Bearer ...")
			return
		}
		handler.ServeHTTP(w, r)
	}))
	return nil
}

// near says whether a caller is of one of the networks.
func (l *Local) near(r *http.Request) bool {
	if len(l.networks) == 0 {
		return true
	}
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	return err == nil && slices.ContainsFunc(l.networks, func(n netip.Prefix) bool { return n.Contains(peer.Addr().Unmap()) })
}

// secure reads what protects the listener on TCP.
func (l *Local) secure(c config.Local, certificates *process.Certificates) (err error) {
	for _, network := range c.Networks {
		prefix, err := netip.ParsePrefix(network)
		if err != nil {
			return fmt.Errorf("local.networks: %w", err)
		}
		l.networks = append(l.networks, prefix)
	}
	l.tls, err = certificates.Load("local", c.TLS)
	return err
}

// level makes a warning of one refusal a minute: whoever has the wrong token
// tries again and again.
func (l *Local) level() slog.Level {
	if l.warned.Due() {
		return slog.LevelWarn
	}
	return slog.LevelDebug
}

func (s *Server) buildBackend() error {
	s.backend = backend.New(s.daemon.Client(), s.Component("backend"), s.Metrics)
	if err := s.local.mountBackend(s.config.Local.TokenFile, s.backend); err != nil {
		return fmt.Errorf("local.token_file: %w", err)
	}
	return nil
}

// mountBackend mounts the API, which answers for paths that there are not, too.
func (l *Local) mountBackend(tokenFile string, api http.Handler) error {
	for _, pattern := range []string{"/v1/", "/v1", "/"} { // "/v1/" alone redirects from "/v1"
		if err := l.Handle(pattern, tokenFile, api); err != nil {
			return err
		}
	}
	return nil
}

// reload reads the tokens again; on an error those of before stay, all of them.
func (l *Local) reload() error {
	fresh := make([]*[]byte, len(l.secrets))
	for i, s := range l.secrets {
		var err error
		if fresh[i], err = s.read(); err != nil {
			return err
		}
	}
	for i, s := range l.secrets {
		s.want.Store(fresh[i])
	}
	return nil
}

func (l *Local) serve(ctx context.Context, listeners []net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	errs := make(chan error, len(listeners))
	var serving sync.WaitGroup
	for _, listener := range listeners {
		serving.Go(func() { // ends with ctx
			var secure *tls.Config
			if listener.Addr().Network() != "unix" {
				secure = l.tls
			}
			errs <- process.HTTP{Handler: l.mux, TLS: secure, Logger: l.log}.Serve(ctx, listener)
			cancel() // one without the other is no service
		})
	}
	serving.Wait()
	var first error
	for range listeners {
		if err := <-errs; first == nil {
			first = err
		}
	}
	return first
}

// onSocket says whether a request came over the unix socket, whose mode has
// chosen the caller already.
func onSocket(r *http.Request) bool {
	address, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	return ok && address.Network() == "unix"
}

// secret is the token of a mounted handler.
type secret struct {
	file string
	want atomic.Pointer[[]byte] // nil: none, which nobody can show
}

// read returns the token that the file holds now; nil: there is no file.
func (s *secret) read() (want *[]byte, err error) {
	if s.file == "" {
		return nil, nil
	}
	data, err := os.ReadFile(s.file)
	if err != nil {
		return nil, fmt.Errorf("read token: %w", err)
	}
	line, _, _ := bytes.Cut(data, []byte("\n"))
	line = bytes.TrimSpace(line)
	if len(line) == 0 {
		return nil, fmt.Errorf("read token: %s holds none on its first line", s.file)
	}
	return &line, nil
}

func (s *secret) shown(r *http.Request) bool {
	want := s.want.Load()
	if want == nil {
		return false
	}
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") { // in any case: RFC 9110, section 11.1 (read 2026-11)
		_, token, _ = r.BasicAuth()
	}
	return subtle.ConstantTimeCompare([]byte(token), *want) == 1
}
