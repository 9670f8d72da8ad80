package apnstest

import (
	"crypto/tls"
	"math/rand/v2"
	"net"
)

type conn struct {
	id    uint64
	ended chan struct{}
}

func newConn(s *Simulator, id uint64, tc *tls.Conn, raw net.Conn, rng *rand.Rand) *conn {
	return &conn{id: id, ended: make(chan struct{})}
}
func (c *conn) serve(Fault) error { return nil }
func (c *conn) abort(error)       {}
func (c *conn) strike(Fault)      {}
