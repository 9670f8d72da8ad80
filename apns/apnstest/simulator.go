package apnstest

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"badgerelay/apns"
)

// ErrClosed is returned by Serve, ServeConn, Dial and Run after Close.
var ErrClosed = errors.New("simulator is closed")

// Simulator is a push service that does not exist. Make one with New, connect
// to it with Dial, Serve or ServeConn, and end it with Close. All methods are
// safe for concurrent use.
type Simulator struct {
	cfg    Config
	log    *slog.Logger
	seed   uint64
	tls    *tls.Config
	ca     *Authority // nil if Config brought the certificate alone
	faulty faultyCertificates

	devices      *deviceModel
	unknown      timesByKey // tokens that are no device's, since they were refused
	serverErrors timesByKey // payloads refused with a 5xx
	history      history
	clientFaults clientFaults
	counters     counters
	plan         atomic.Pointer[faultPlan]
	keys         keyRing
	churn        churn

	rngMu sync.Mutex
	rng   *rand.Rand // guarded by rngMu

	scriptMu      sync.Mutex // guards the scripts
	script        []Answer
	connectScript []Fault
	deviceScripts map[apns.DeviceToken][]Answer
	scripted      atomic.Int64

	mu        sync.Mutex // guards what follows
	closed    bool
	conns     map[*conn]struct{}
	pending   map[net.Conn]struct{} // not yet through the handshake
	listeners map[net.Listener]struct{}
	lastConn  uint64
	wg        sync.WaitGroup // every goroutine; Add only under mu while not closed
	done      chan struct{}  // closed by Close
}

// New makes a Simulator. It starts nothing. The error is that of
// Config.Validate, or says why a certificate could not be made.
func New(cfg Config) (*Simulator, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	s := &Simulator{
		cfg: cfg, log: cfg.logger(), seed: cfg.Seed, devices: newDeviceModel(),
		unknown:      timesByKey{limit: 100_000, at: map[string]time.Time{}},
		serverErrors: timesByKey{limit: 10_000, at: map[string]time.Time{}},
		history:      history{limit: cfg.historySize()}, clientFaults: clientFaults{n: noClientFaults()},
		counters:      counters{reasons: map[apns.Reason]uint64{}, rules: map[Rule]uint64{}, injected: map[string]uint64{}},
		deviceScripts: map[apns.DeviceToken][]Answer{}, conns: map[*conn]struct{}{}, pending: map[net.Conn]struct{}{},
		listeners: map[net.Listener]struct{}{}, done: make(chan struct{}),
	}
	if s.seed == 0 {
		s.seed = rand.Uint64()
	}
	if cfg.Fast {
		s.history.limit = 0
	}
	s.rng = rand.New(rand.NewPCG(s.seed, 0))
	s.plan.Store(newFaultPlan(cfg.Faults))
	s.keys.init(cfg.Topics)
	for _, k := range cfg.TeamKeys {
		s.AddTeamKey(k)
	}
	if err := s.prepareTLS(); err != nil {
		return nil, err
	}
	s.log.Info("simulator ready", "environment", cfg.Environment.String(), "seed", s.seed)
	return s, nil
}

// RootCAs returns a pool with which a client trusts the simulator.
func (s *Simulator) RootCAs() *x509.CertPool {
	if s.ca == nil {
		pool := x509.NewCertPool()
		for _, der := range s.cfg.Certificate.Certificate {
			if cert, err := x509.ParseCertificate(der); err == nil {
				pool.AddCert(cert)
			}
		}
		return pool
	}
	return s.ca.Pool()
}

// Authority returns what signed the server's certificate; nil if
// Config.Certificate came without.
func (s *Simulator) Authority() *Authority { return s.ca }

// Run serves l until ctx is done, then drains for at most five seconds, and
// closes. It returns nil, or why l failed.
func (s *Simulator) Run(ctx context.Context, l net.Listener) error {
	stop := context.AfterFunc(ctx, func() {
		_ = l.Close() // ends Serve
	})
	defer stop()
	err := s.Serve(l)
	if ctx.Err() != nil {
		err = nil
		drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		_ = s.Drain(drain) // Close ends what did not finish
	}
	s.Close()
	return err
}

// Serve accepts connections from l until l fails or the simulator is closed,
// which closes l. It does not wait for the connections: Close does.
// After Close it returns ErrClosed.
func (s *Simulator) Serve(l net.Listener) error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return ErrClosed
	}
	s.listeners[l] = struct{}{}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.listeners, l)
		s.mu.Unlock()
		_ = l.Close() // closing twice is harmless
	}()
	for {
		nc, err := l.Accept()
		if err != nil {
			select {
			case <-s.done:
				return ErrClosed
			default:
				return fmt.Errorf("accept: %w", err)
			}
		}
		if !s.goServe(nc) {
			_ = nc.Close() // nobody will serve it
			return ErrClosed
		}
	}
}

// goServe serves nc on a goroutine that Close waits for.
func (s *Simulator) goServe(nc net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.wg.Go(func() {
		if err := s.serveConn(nc); err != nil {
			s.log.Debug("connection ended", "error", err)
		}
	})
	return true
}

// Dial returns the client's end of an in-memory connection to the simulator,
// before TLS. network and addr are ignored: it has the shape of
// net.Dialer.DialContext. A refused connect still dials; its handshake fails.
// After Close it returns ErrClosed.
func (s *Simulator) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	client, server := net.Pipe()
	if !s.goServe(server) {
		return nil, ErrClosed
	}
	return client, nil
}

// ServeConn serves one connection, before TLS, until it ends, and closes it.
// It returns nil if the client closed it in good order, else why it ended.
// After Close it closes nc and returns ErrClosed.
func (s *Simulator) ServeConn(nc net.Conn) error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		_ = nc.Close() // nobody will serve it
		return ErrClosed
	}
	s.wg.Add(1)
	s.mu.Unlock()
	defer s.wg.Done()
	return s.serveConn(nc)
}

// Close ends all connections and listeners at once and waits until every
// goroutine of the simulator has ended. Closing twice is harmless.
func (s *Simulator) Close() {
	s.mu.Lock()
	if !s.closed {
		s.closed = true
		close(s.done)
	}
	for l := range s.listeners {
		_ = l.Close() // Serve reports
	}
	for nc := range s.pending {
		_ = nc.Close() // the handshake reports
	}
	for c := range s.conns {
		c.abort(ErrClosed)
	}
	s.mu.Unlock()
	s.wg.Wait()
}

// Drain tells every client that the server shuts down (GOAWAY, rule C7),
// answers what is in flight, and returns when all connections that were open
// have ended, or the error of ctx. New connections are still served.
func (s *Simulator) Drain(ctx context.Context) error {
	conns := s.openConns()
	for _, c := range conns {
		c.strike(FaultGoAway)
	}
	for _, c := range conns {
		select {
		case <-c.ended:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// CloseConnections ends every open connection at once, without GOAWAY, and
// returns their number. It does not wait.
func (s *Simulator) CloseConnections() int {
	conns := s.openConns()
	for _, c := range conns {
		c.abort(errors.New("closed on demand"))
	}
	return len(conns)
}

// openConns returns the open connections, oldest first.
func (s *Simulator) openConns() []*conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	conns := make([]*conn, 0, len(s.conns))
	for c := range s.conns {
		conns = append(conns, c)
	}
	slices.SortFunc(conns, func(a, b *conn) int { return int(int64(a.id) - int64(b.id)) })
	return conns
}
