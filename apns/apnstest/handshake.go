package apnstest

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"time"

	"golang.org/x/net/http2"
)

// faultyCertificates are made when first needed.
type faultyCertificates struct {
	mu             sync.Mutex
	expired, wrong *tls.Certificate
}

// serverHosts are always in the server's certificate.
var serverHosts = []string{
	"localhost", "127.0.0.1", "::1", "api.push.apple.com", "api.sandbox.push.apple.com",
	"api.development.push.apple.com", "apnssim",
}

// prepareTLS makes the server's certificate, unless it was given, and its TLS
// configuration (rule C1).
func (s *Simulator) prepareTLS() error {
	s.ca = s.cfg.Authority
	cert := s.cfg.Certificate
	if cert == nil {
		if s.ca == nil {
			ca, err := NewAuthority()
			if err != nil {
				return err
			}
			s.ca = ca
		}
		made, err := s.ca.ServerCertificate(time.Now().AddDate(20, 0, 0), append(serverHosts, s.cfg.Hosts...)...)
		if err != nil {
			return err
		}
		cert = &made
	}
	s.tls = &tls.Config{
		MinVersion: tls.VersionTLS12, NextProtos: []string{http2.NextProtoTLS}, Certificates: []tls.Certificate{*cert},
		GetConfigForClient: s.checkALPN,
	}
	if s.cfg.ClientCAs != nil {
		s.tls.ClientCAs = s.cfg.ClientCAs
		s.tls.ClientAuth = tls.VerifyClientCertIfGiven
	}
	return nil
}

// errALPN is why a handshake is refused.
var errALPN = errors.New("client did not offer h2")

// checkALPN refuses a client that offers other protocols only (rule C1).
// One without ALPN is taken, save in strict mode: the connection preface shows
// whether it speaks HTTP/2.
func (s *Simulator) checkALPN(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	offered := hello.SupportedProtos
	if slices.Contains(offered, http2.NextProtoTLS) || len(offered) == 0 && !s.cfg.Strict {
		return nil, nil // the configuration as it is
	}
	s.counters.refused("", RuleTLS)
	return nil, errALPN
}

// churn counts connects per source and minute (rule C8). Safe for concurrent use.
type churn struct {
	mu      sync.Mutex
	minute  int64
	sources map[string]int
}

func (c *churn) connect(source string, now time.Time) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if m := now.Unix() / 60; m != c.minute || c.sources == nil {
		c.minute, c.sources = m, map[string]int{}
	}
	c.sources[source]++
	return c.sources[source]
}

// serveConn takes a connection through the handshake and serves it.
func (s *Simulator) serveConn(nc net.Conn) error {
	s.counters.connects.Add(1)
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		_ = nc.Close() // too late to serve it
		return ErrClosed
	}
	s.lastConn++
	id := s.lastConn
	s.pending[nc] = struct{}{}
	s.mu.Unlock()
	rng := rand.New(rand.NewPCG(s.seed, id))
	fault := s.nextConnectFault(rng)
	tc, err := s.handshake(nc, fault)
	s.mu.Lock()
	delete(s.pending, nc)
	if err == nil && s.closed {
		err = ErrClosed
	}
	if err != nil {
		s.mu.Unlock()
		_ = nc.Close() // the handshake's error says more
		return err
	}
	var cert *pushCertificate
	if certs := tc.ConnectionState().PeerCertificates; len(certs) > 0 {
		cert = readPushCertificate(certs[0])
	}
	c := newConn(s, id, tc, nc, cert, rng)
	s.conns[c] = struct{}{}
	s.mu.Unlock()
	s.counters.handshakes.Add(1)
	s.counters.connections.Add(1)
	err = c.serve(fault)
	s.counters.connections.Add(-1)
	s.mu.Lock()
	delete(s.conns, c)
	s.mu.Unlock()
	close(c.ended)
	return err
}

// sourceOf is the address that a connection comes from, without its port.
func sourceOf(nc net.Conn) string {
	source := nc.RemoteAddr().String()
	if host, _, err := net.SplitHostPort(source); err == nil {
		return host
	}
	return source
}

// handshake admits nc and makes TLS of it, with the given fault.
func (s *Simulator) handshake(nc net.Conn, fault Fault) (*tls.Conn, error) {
	source := sourceOf(nc)
	if limit := s.cfg.connectsPerMinute(); limit > 0 && s.churn.connect(source, time.Now()) > limit {
		s.clientFaults.count(ClientChurn, 1)
		s.counters.refused("", RuleChurn)
		return nil, fmt.Errorf("rule %s: more than %d connects a minute from %s", RuleChurn, limit, source)
	}
	cfg := s.tls
	if fault != NoFault {
		s.counters.inject(fault)
		s.log.Info("fault injected", "fault", fault.String(), "source", source)
	}
	switch fault {
	case FaultRefuseConnect:
		return nil, errors.New("connect refused by injected fault")
	case FaultSlowTLS:
		if !s.sleep(s.plan.Load().hold()) {
			return nil, ErrClosed
		}
	case FaultExpiredCertificate, FaultWrongName:
		cert, err := s.faultyCertificate(fault)
		if err != nil {
			return nil, err
		}
		cfg = cfg.Clone()
		cfg.Certificates = []tls.Certificate{*cert}
	}
	if d := s.cfg.RoundTrip; d > 0 && !s.sleep(d) {
		return nil, ErrClosed
	}
	tc := tls.Server(nc, cfg)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := tc.HandshakeContext(ctx); err != nil {
		return nil, fmt.Errorf("rule %s: handshake: %w", RuleTLS, err)
	}
	return tc, nil
}

// sleep waits for d; it reports false if the simulator is closed first.
func (s *Simulator) sleep(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-s.done:
		return false
	}
}

func (s *Simulator) faultyCertificate(f Fault) (*tls.Certificate, error) {
	if s.ca == nil {
		return nil, errors.New("faulty certificates need an authority")
	}
	s.faulty.mu.Lock()
	defer s.faulty.mu.Unlock()
	slot, until, hosts := &s.faulty.wrong, time.Now().AddDate(1, 0, 0), []string{"push.example.net"}
	if f == FaultExpiredCertificate {
		slot, until, hosts = &s.faulty.expired, earliest().AddDate(0, 6, 0), serverHosts
	}
	if *slot == nil {
		cert, err := s.ca.ServerCertificate(until, hosts...)
		if err != nil {
			return nil, err
		}
		*slot = &cert
	}
	return *slot, nil
}
