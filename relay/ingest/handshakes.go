package ingest

import (
	"crypto/tls"
	"errors"
	"runtime"
	"time"
)

const (
	// connectTime is how long a connection may take to say the preface of HTTP/2, its
	// TLS handshake included, beside the time that it waits for its turn.
	connectTime = 10 * time.Second
	// turnTime is until when its turn has to come: agents give an attempt up after 20 s.
	turnTime = 18 * time.Second
)

// errBusy is what the handshake of a connection ends with whose turn did not come.
var errBusy = errors.New("too many handshakes are before it")

// handshakes lets as many TLS handshakes compute at once as there are cores, in the
// order in which the clients' first messages came. When thousands of agents come
// back at once, all would end late if each were given a little time now and then:
// too late, most of them, and the work be lost.
//
// A handshake that waits for its peer holds no turn.
type handshakes struct {
	turns chan struct{}
}

func newHandshakes() *handshakes {
	return &handshakes{make(chan struct{}, runtime.GOMAXPROCS(0))}
}

// guard returns a configuration with which handshakes on limitedConns take turns.
func (h *handshakes) guard(config *tls.Config) *tls.Config {
	guarded := config.Clone()
	guarded.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if c, ok := hello.Conn.(*limitedConn); ok && !h.enter(c) {
			return nil, errBusy
		}
		if config.GetConfigForClient != nil {
			return config.GetConfigForClient(hello)
		}
		return nil, nil //nolint:nilnil // crypto/tls: the configuration that there is
	}
	return guarded
}

// enter waits for the connection's turn, and reports whether it came in time.
func (h *handshakes) enter(c *limitedConn) bool {
	c.queued.Store(true)
	began := time.Now()
	late := time.NewTimer(time.Until(c.entered.Add(turnTime)))
	defer late.Stop()
	select {
	case h.turns <- struct{}{}:
		c.turnOf = h
		c.queued.Store(false)
		_ = c.SetDeadline(c.entered.Add(connectTime + time.Since(began))) // gRPC has set it without; the connection may be closed
		return true
	case <-late.C:
	case <-c.gone:
	}
	return false
}

// endTurn gives the connection's turn to the next one, if it has one: TLS waits for
// the peer, or is done. The goroutine that makes the handshake calls it.
func (c *limitedConn) endTurn() {
	if c.turnOf != nil {
		<-c.turnOf.turns
		c.turnOf = nil
	}
}

// Read implements net.Conn.
func (c *limitedConn) Read(p []byte) (int, error) {
	c.endTurn()
	return c.Conn.Read(p)
}
