package apns

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sideshow/apns2"
	"github.com/sideshow/apns2/payload"
	"golang.org/x/net/http2"
)

// referenceConn is one connection of the reference engine: apns2.Client over
// one HTTP/2 client connection, one goroutine per open stream, as many as
// config.MaxStreams at most.
type referenceConn struct {
	pool   *Pool
	cred   Credential
	conn   *http2.ClientConn
	client *apns2.Client
	connState

	woken chan struct{} // one slot; wakes the dispatcher
	token atomic.Pointer[providerToken]
	work  chan Request

	mu      sync.Mutex // a few memory operations
	failure error
}

// newReferenceConn takes over nc.
func newReferenceConn(p *Pool, nc net.Conn, cred Credential) (*referenceConn, error) {
	transport := &http2.Transport{
		StrictMaxConcurrentStreams: true,
		ReadIdleTimeout:            p.config.AnswerTimeout,
		PingTimeout:                p.config.PingTimeout,
		WriteByteTimeout:           p.config.AnswerTimeout + p.config.PingTimeout,
		DisableCompression:         true,
	}
	conn, err := transport.NewClientConn(nc)
	if err != nil {
		return nil, err
	}
	c := &referenceConn{pool: p, cred: cred, conn: conn,
		woken: make(chan struct{}, 1), work: make(chan Request, p.config.MaxStreams)}
	c.began = time.Now()
	host, _, err := net.SplitHostPort(p.config.Addr)
	if err != nil {
		return nil, err
	}
	c.client = &apns2.Client{Host: "https://" + host, HTTPClient: &http.Client{Transport: c}}
	return c, nil
}

// RoundTrip implements http.RoundTripper on this one connection. The
// provider token is ours, because apns2 renews one per client.
func (c *referenceConn) RoundTrip(r *http.Request) (*http.Response, error) {
	if c.cred.Token != nil {
		token, err := c.cred.Token.get(time.Now())
		if err != nil {
			return nil, err
		}
		if shown := c.token.Load(); shown != nil && token.early && token.bearer != shown.bearer {
			c.drain()
			token = shown // for what is under way already
		}
		c.token.Store(token)
		r.Header.Set("authorization", token.bearer)
	}
	answer, err := c.conn.RoundTrip(r)
	if raw, ok := r.Context().Value(rawAnswerKey{}).(*rawAnswer); ok && err == nil {
		err = raw.read(answer)
	}
	return answer, err
}

// rawAnswer is an answer before apns2 reads it, which takes what is no JSON
// for a failure of the connection. It belongs to the push whose context holds it.
type rawAnswer struct {
	header http.Header
	body   []byte
}

type rawAnswerKey struct{}

// read takes the body out of the answer.
func (raw *rawAnswer) read(answer *http.Response) (err error) {
	defer func() { _ = answer.Body.Close() }() // what is left of it is of no use
	raw.header = answer.Header
	raw.body, err = io.ReadAll(io.LimitReader(answer.Body, maxErrorBody))
	answer.Body = http.NoBody
	return err
}

func (c *referenceConn) state() *connState { return &c.connState }

func (c *referenceConn) wake() {
	select {
	case c.woken <- struct{}{}:
	default:
	}
}

func (c *referenceConn) drain() {
	if first, woken := c.leave(); first {
		if woken {
			c.pool.Wake()
		}
		c.pool.wakeManager() // the place is free, whatever it knows of demand
	}
	c.wake()
}

func (c *referenceConn) fail(err error) {
	c.mu.Lock()
	if c.failure == nil {
		c.failure = err
	}
	c.mu.Unlock()
	c.drain()
}

// run takes work and hands it to workers until the connection ends.
func (c *referenceConn) run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() {
		c.fail(context.Cause(ctx))
		_ = c.conn.Close() // ends every push on it
	})
	defer stop()
	var workers sync.WaitGroup
	c.dispatch(ctx, &workers)
	close(c.work)
	workers.Wait() // every push has a deadline
	_ = c.conn.Close()
	c.granted.Store(0)
	c.mu.Lock()
	defer c.mu.Unlock()
	if errors.Is(c.failure, errDrained) {
		return nil
	}
	return c.failure
}

// pollState is how often the connection is looked at while nothing happens:
// http2.ClientConn does not tell when it closes.
const pollState = time.Second

func (c *referenceConn) dispatch(ctx context.Context, workers *sync.WaitGroup) {
	batch := make([]Request, maxBatch)
	started := 0
	ticker := time.NewTicker(pollState)
	defer ticker.Stop()
	announced := false
	for !c.leaving.Load() {
		if s := c.conn.State(); s.Closed || s.Closing {
			c.fail(errClosedByPeer)
			return
		}
		free := min(c.grant()-int(c.inFlight.Load()), len(batch))
		if free > 0 {
			if n, _ := c.pool.take(batch[:free]); n > 0 {
				c.pushed(time.Now())
				c.inFlight.Add(int64(n))
				for ; started < int(c.inFlight.Load()); started++ {
					workers.Go(func() { c.serve(ctx) }) // ends when work is closed; run waits
				}
				for _, r := range batch[:n] {
					c.work <- r // has room for every stream
				}
				clear(batch[:n])
				announced = false
				c.waiting.Store(waitBusy)
				continue
			}
		}
		if !announced {
			announced = true
			c.waiting.Store(waitStreams)
			if free > 0 {
				c.waiting.Store(waitWork)
			} else {
				c.pool.Wake() // another connection may be idle; else there is demand for one
			}
			continue
		}
		select {
		case <-c.woken:
		case <-ticker.C:
			c.established.Store(true) // it has stayed
			if s := c.conn.State(); s.Closed || s.Closing {
				c.fail(errClosedByPeer)
				return
			}
		}
		announced = false
		c.waiting.Store(waitBusy)
	}
	c.fail(errDrained)
}

// grant returns how many streams may be open: one until the first accepted
// answer, as http2.Transport does not wait for the first SETTINGS.
func (c *referenceConn) grant() int {
	n := 1
	if c.authenticated.Load() {
		n = min(int(c.conn.State().MaxConcurrentStreams), c.pool.config.MaxStreams)
	}
	c.granted.Store(int64(n))
	return n
}

// serve pushes one after the other.
func (c *referenceConn) serve(ctx context.Context) {
	for r := range c.work {
		result := c.push(ctx, r)
		c.inFlight.Add(-1)
		c.pool.finish([]Result{result})
		c.wake()
	}
}

func (c *referenceConn) push(ctx context.Context, r Request) Result {
	ctx, cancel := context.WithTimeout(ctx, 3*c.pool.config.AnswerTimeout)
	defer cancel()
	if r.Deadline.Passed() {
		return Result{Tag: r.Tag, Err: transportError(ReasonNotSent, errTooLate)}
	}
	now := time.Now()
	n := &apns2.Notification{
		DeviceToken: r.Device.Hex(),
		Topic:       c.pool.config.Topic,
		Priority:    int(r.Priority),
		PushType:    apns2.PushTypeAlert,
		Payload:     payload.NewPayload().Badge(int(r.Badge)),
		Expiration:  time.Unix(c.pool.config.expiration(now), 0),
	}
	result := Result{Tag: r.Tag, WrittenAt: now}
	raw := new(rawAnswer)
	answer, err := c.client.PushWithContext(context.WithValue(ctx, rawAnswerKey{}, raw), n)
	if err != nil {
		result.Err = c.transportFailure(err)
		c.lost.Add(1)
		return result
	}
	if answer.Sent() && (len(raw.body) == 0 || answer.ApnsID != "") {
		if d, ok := r.Tag.(*directPush); ok {
			d.id = answer.ApnsID
		}
		c.noteAuthenticated()
		return result
	}
	result.Err = newError(answer.StatusCode, raw.body, answer.ApnsID, parseRetryAfter(raw.header.Get("retry-after"), now))
	if authenticates(result.Err) {
		c.noteAuthenticated()
	}
	if c.pool.refusal(result.Err, c.cred, c.token.Load(), now) {
		c.drain()
	}
	return result
}

func (c *referenceConn) noteAuthenticated() {
	if !c.authenticated.Swap(true) {
		c.pool.noteAuthenticated()
	}
}

// transportFailure names what http2 says went wrong.
func (c *referenceConn) transportFailure(err error) *Error {
	var stream http2.StreamError
	var gone http2.GoAwayError
	switch {
	case errors.As(err, &stream) && stream.Code == http2.ErrCodeRefusedStream:
		return transportError(ReasonStreamRefused, err)
	case errors.As(err, &stream):
		c.drain()
		return transportError(ReasonStreamReset, err)
	case errors.As(err, &gone):
		reason, _ := parseErrorBody([]byte(gone.DebugData))
		c.fail(&goAwayError{code: gone.ErrCode, reason: reason, text: cleanText([]byte(gone.DebugData))})
		return transportError(ReasonGoneAway, err)
	case errors.Is(err, context.DeadlineExceeded):
		c.drain()
		return transportError(ReasonTimeout, err)
	case strings.Contains(err.Error(), "Transport received Server's graceful shutdown GOAWAY"):
		c.fail(err)
		return transportError(ReasonGoneAway, err)
	}
	c.fail(err)
	return transportError(ReasonConnectionLost, err)
}
