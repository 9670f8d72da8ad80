package ewstest

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"badgerelay/auth/authtest"
	"badgerelay/relay/freeport"
)

// Config of a Server. The zero value has no mailbox and lets nobody in.
type Config struct {
	// Mailboxes are SMTP addresses. They are spread over the back ends in turn.
	Mailboxes []string
	// BackEnds is how many servers there are behind the address. 0: 1.
	BackEnds int
	// User and Password are the service account's. Empty: everybody is let in.
	User, Password string
	// Schemes are the authentications offered: Basic, NTLM. Empty: Basic.
	Schemes []string
	// ExtendedProtection is Allow or Require. Empty: Allow.
	ExtendedProtection string
	// NoImpersonation: the account has not the right; NoDelegation: nor rights to
	// any folder.
	NoImpersonation, NoDelegation bool
	// Streams is how many streaming connections an identity may have. 0: 10.
	Streams int
	// Requests is how many requests an account may have under way. 0: 27.
	Requests int
	// Subscriptions is how many a mailbox may have. 0: 5000.
	Subscriptions int
	// Heartbeat is how often a stream that has nothing to tell says so. 0: 45s.
	Heartbeat time.Duration
	// TLS serves https, with a certificate of its own (CA).
	TLS bool
	// Autodiscover is the address that autodiscover names. Empty: the server's own.
	Autodiscover string
	// PlainDiscovery has autodiscover speak plain XML only, as grommunio's does.
	PlainDiscovery bool
}

func (c *Config) schemes() []string {
	if len(c.Schemes) == 0 {
		return []string{"Basic"}
	}
	return c.Schemes
}

// Path is where Exchange Web Services are, DiscoverPath and PlainDiscoverPath where
// autodiscover is.
const (
	Path              = "/EWS/Exchange.asmx"
	DiscoverPath      = "/autodiscover/autodiscover.svc"
	PlainDiscoverPath = "/autodiscover/autodiscover.xml"
)

// Server is a simulated Exchange. Its methods are safe for concurrent use.
type Server struct {
	config Config
	tls    *authtest.Server // nil: without TLS

	mu         sync.Mutex // guards what follows
	password   string
	address    string
	http       *http.Server
	down       chan struct{} // closed when the server stops
	mailboxes  map[string]*mailbox
	byFolder   map[string]*mailbox // by folder id
	backEnds   []*backEnd
	streams    map[*stream]struct{}
	number     int // the last id given
	requests   int // under way, streams left out
	faults     Faults
	busyUntil  map[string]time.Time   // by identity; "": all of them
	told       map[string][]time.Time // by identity: when it was told of busyUntil
	stats      Stats
	violations []string
}

// Stats are what the server has seen.
type Stats struct {
	Requests    map[string]int // by operation
	MostAtOnce  int            // short requests
	Streams     int            // open now
	MostStreams int
	Logins      int // that were refused

	Subscriptions int // that there are now
}

// backEnd is one server behind the address. Its subscriptions die with it.
type backEnd struct {
	name          string
	subscriptions map[string]*subscription
}

// New returns a server that Start or Serve starts.
func New(c Config) (*Server, error) {
	s := &Server{
		config: c, password: c.Password, mailboxes: make(map[string]*mailbox), byFolder: make(map[string]*mailbox), streams: make(map[*stream]struct{}),
		busyUntil: make(map[string]time.Time), told: make(map[string][]time.Time), stats: Stats{Requests: make(map[string]int)},
	}
	for n := range max(c.BackEnds, 1) {
		s.backEnds = append(s.backEnds, &backEnd{name: fmt.Sprintf("ex%02d", n+1), subscriptions: make(map[string]*subscription)})
	}
	for n, address := range c.Mailboxes {
		m := newMailbox(address, n%len(s.backEnds))
		s.mailboxes[strings.ToLower(address)] = m
		for _, f := range m.folders {
			s.byFolder[f.id] = m
		}
	}
	if c.TLS {
		s.tls = authtest.NewServer("Microsoft Exchange", time.Now().AddDate(0, 1, 0), "127.0.0.1", "localhost")
	}
	return s, nil
}

// Start listens on a free port of loopback; after Stop, on the same one.
func (s *Server) Start() error {
	s.mu.Lock()
	address := s.address
	s.mu.Unlock()
	var err error
	if address == "" {
		if address, err = freeport.Address(); err != nil {
			return fmt.Errorf("simulated Exchange: %w", err)
		}
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("simulated Exchange: %w", err)
	}
	s.Serve(l)
	return nil
}

// Serve starts to serve on l, and returns at once.
func (s *Server) Serve(l net.Listener) {
	server := &http.Server{
		Handler: http.HandlerFunc(s.serve), ReadHeaderTimeout: 10 * time.Second,
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, connKey{}, &connection{})
		},
	}
	server.Protocols = new(http.Protocols)
	server.Protocols.SetHTTP1(true)
	s.mu.Lock()
	s.address, s.http, s.down = l.Addr().String(), server, make(chan struct{})
	s.mu.Unlock()
	if s.tls != nil {
		l = tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{s.tls.TLS()}, MinVersion: tls.VersionTLS12})
	}
	go func() { // ends with Stop
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			s.violate("the simulator stopped: %v", err)
		}
	}()
}

// Stop ends everything: connections are cut, and subscriptions are gone.
func (s *Server) Stop() {
	s.mu.Lock()
	server := s.http
	for _, b := range s.backEnds {
		clear(b.subscriptions)
	}
	for _, m := range s.mailboxes {
		m.subscriptions = nil
	}
	if s.down != nil {
		close(s.down)
		s.down = nil
	}
	s.mu.Unlock()
	if server != nil {
		_ = server.Close() // nothing is lost that was not to be
	}
}

// Restart is Stop and Start.
func (s *Server) Restart() error {
	s.Stop()
	return s.Start()
}

// URL is the address of Exchange Web Services.
func (s *Server) URL() string { return s.base() + Path }

// DiscoverURL is the address of autodiscover.
func (s *Server) DiscoverURL() string { return s.base() + DiscoverPath }

func (s *Server) base() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.config.TLS {
		return "https://" + s.address
	}
	return "http://" + s.address
}

// CA is the certificate of the server's authority, PEM.
func (s *Server) CA() []byte { return s.tls.PEM() }

// SetPassword changes the service account's password.
func (s *Server) SetPassword(p string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.password = p
}

// Stats returns what the server has seen.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	stats := s.stats
	stats.Requests = make(map[string]int)
	for op, n := range s.stats.Requests {
		stats.Requests[op] = n
	}
	stats.Streams = len(s.streams)
	for _, b := range s.backEnds {
		stats.Subscriptions += len(b.subscriptions)
	}
	return stats
}

// Violations are what clients should not have done.
func (s *Server) Violations() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.violations)
}

// maxViolations bounds what is kept.
const maxViolations = 100

func (s *Server) violate(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.violateLocked(format, args...)
}

func (s *Server) violateLocked(format string, args ...any) {
	if len(s.violations) < maxViolations {
		s.violations = append(s.violations, fmt.Sprintf(format, args...))
	}
}

type connKey struct{}

// connection is what the server knows of a TCP connection.
type connection struct {
	mu            sync.Mutex
	challenge     []byte // NTLM's, sent on it
	authenticated bool   // by NTLM
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost || !s.serves(r.URL.Path) {
		http.NotFound(w, r)
		return
	}
	if !s.authenticate(w, r) {
		return
	}
	if !strings.HasPrefix(r.Header.Get("Content-Type"), "text/xml") {
		s.violate("content type %q, not text/xml", r.Header.Get("Content-Type"))
		http.Error(w, "text/xml is wanted", http.StatusUnsupportedMediaType)
		return
	}
	switch r.URL.Path {
	case DiscoverPath:
		s.discover(w, r)
	case PlainDiscoverPath:
		s.discoverPlain(w, r)
	default:
		s.operate(w, r)
	}
}

func (s *Server) serves(path string) bool {
	return path == Path || path == PlainDiscoverPath || path == DiscoverPath && !s.config.PlainDiscovery
}

// authenticate says whether the request is the service account's, and answers
// it otherwise.
func (s *Server) authenticate(w http.ResponseWriter, r *http.Request) bool {
	if s.config.User == "" {
		return true
	}
	s.mu.Lock()
	password := s.password
	s.mu.Unlock()
	conn := r.Context().Value(connKey{}).(*connection)
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	offered := slices.Contains(s.config.schemes(), scheme)
	switch {
	case scheme == "Basic" && offered:
		user, given, _ := r.BasicAuth()
		if strings.EqualFold(user, s.config.User) && given == password {
			return true
		}
	case scheme == "NTLM" && offered:
		data, err := base64.StdEncoding.DecodeString(token)
		if err != nil {
			s.violate("an NTLM token that is not base64")
			break
		}
		answer, ok := s.ntlm(conn, data, password, r.TLS != nil)
		if ok {
			return true
		}
		if answer != nil {
			w.Header().Set("WWW-Authenticate", "NTLM "+base64.StdEncoding.EncodeToString(answer))
			w.WriteHeader(http.StatusUnauthorized)
			return false
		}
	case scheme == "" && conn.isAuthenticated():
		return true
	}
	if scheme != "" {
		s.mu.Lock()
		s.stats.Logins++
		s.mu.Unlock()
	}
	for _, offer := range s.config.schemes() {
		if offer == "Basic" {
			offer = `Basic realm="127.0.0.1"`
		}
		w.Header().Add("WWW-Authenticate", offer)
	}
	w.WriteHeader(http.StatusUnauthorized)
	return false
}

func (c *connection) isAuthenticated() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.authenticated
}
