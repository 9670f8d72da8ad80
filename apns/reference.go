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

// referenceLink is one connection of the reference engine: apns2.Client over
// one HTTP/2 client connection, one goroutine per open stream, as many as
// config.MaxStreams at most.
type referenceLink struct {
	pool   *Pool
	cred   Credential
	conn   *http2.ClientConn
	client *apns2.Client
	linkState

	kicks chan struct{} // one slot; wakes the dispatcher
	token atomic.Pointer[providerToken]
	work  chan Request

	mu      sync.Mutex // a few memory operations
	failure error
}

// newReferenceLink takes over nc.
func newReferenceLink(p *Pool, nc net.Conn, cred Credential) (*referenceLink, error) {
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
	l := &referenceLink{pool: p, cred: cred, conn: conn,
		kicks: make(chan struct{}, 1), work: make(chan Request, p.config.MaxStreams)}
	l.began = time.Now()
	host, _, err := net.SplitHostPort(p.config.Addr)
	if err != nil {
		return nil, err
	}
	l.client = &apns2.Client{Host: "https://" + host, HTTPClient: &http.Client{Transport: l}}
	return l, nil
}

// RoundTrip implements http.RoundTripper on this link's only connection. The
// provider token is ours, because apns2 renews one per client.
func (l *referenceLink) RoundTrip(r *http.Request) (*http.Response, error) {
	if l.cred.Token != nil {
		token, err := l.cred.Token.get(time.Now())
		if err != nil {
			return nil, err
		}
		if shown := l.token.Load(); shown != nil && token.early && token.bearer != shown.bearer {
			l.drain()
			token = shown // for what is under way already
		}
		l.token.Store(token)
		r.Header.Set("authorization", token.bearer)
	}
	answer, err := l.conn.RoundTrip(r)
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

func (l *referenceLink) state() *linkState { return &l.linkState }

func (l *referenceLink) kick() {
	select {
	case l.kicks <- struct{}{}:
	default:
	}
}

func (l *referenceLink) drain() {
	if first, woken := l.leave(); first {
		if woken {
			l.pool.Wake()
		}
		l.pool.wakeManager() // the place is free, whatever it knows of demand
	}
	l.kick()
}

func (l *referenceLink) fail(err error) {
	l.mu.Lock()
	if l.failure == nil {
		l.failure = err
	}
	l.mu.Unlock()
	l.drain()
}

// run takes work and hands it to workers until the connection ends.
func (l *referenceLink) run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() {
		l.fail(context.Cause(ctx))
		_ = l.conn.Close() // ends every push on it
	})
	defer stop()
	var workers sync.WaitGroup
	l.dispatch(ctx, &workers)
	close(l.work)
	workers.Wait() // every push has a deadline
	_ = l.conn.Close()
	l.granted.Store(0)
	l.mu.Lock()
	defer l.mu.Unlock()
	if errors.Is(l.failure, errDrained) {
		return nil
	}
	return l.failure
}

// pollState is how often the connection is looked at while nothing happens:
// http2.ClientConn does not tell when it closes.
const pollState = time.Second

func (l *referenceLink) dispatch(ctx context.Context, workers *sync.WaitGroup) {
	batch := make([]Request, maxBatch)
	started := 0
	ticker := time.NewTicker(pollState)
	defer ticker.Stop()
	announced := false
	for !l.leaving.Load() {
		if s := l.conn.State(); s.Closed || s.Closing {
			l.fail(errClosedByPeer)
			return
		}
		free := min(l.grant()-int(l.inFlight.Load()), len(batch))
		if free > 0 {
			if n, _ := l.pool.take(batch[:free]); n > 0 {
				l.pushed(time.Now())
				l.inFlight.Add(int64(n))
				for ; started < int(l.inFlight.Load()); started++ {
					workers.Go(func() { l.serve(ctx) }) // ends when work is closed; run waits
				}
				for _, r := range batch[:n] {
					l.work <- r // has room for every stream
				}
				clear(batch[:n])
				announced = false
				l.waiting.Store(waitBusy)
				continue
			}
		}
		if !announced {
			announced = true
			l.waiting.Store(waitStreams)
			if free > 0 {
				l.waiting.Store(waitWork)
			} else {
				l.pool.Wake() // another connection may be idle; else there is demand for one
			}
			continue
		}
		select {
		case <-l.kicks:
		case <-ticker.C:
			l.greeted.Store(true) // it has stayed
			if s := l.conn.State(); s.Closed || s.Closing {
				l.fail(errClosedByPeer)
				return
			}
		}
		announced = false
		l.waiting.Store(waitBusy)
	}
	l.fail(errDrained)
}

// grant returns how many streams may be open: one until the first accepted
// answer, as http2.Transport does not wait for the first SETTINGS.
func (l *referenceLink) grant() int {
	n := 1
	if l.proven.Load() {
		n = min(int(l.conn.State().MaxConcurrentStreams), l.pool.config.MaxStreams)
	}
	l.granted.Store(int64(n))
	return n
}

// serve pushes one after the other.
func (l *referenceLink) serve(ctx context.Context) {
	for r := range l.work {
		result := l.push(ctx, r)
		l.inFlight.Add(-1)
		l.pool.finish([]Result{result})
		l.kick()
	}
}

func (l *referenceLink) push(ctx context.Context, r Request) Result {
	ctx, cancel := context.WithTimeout(ctx, 3*l.pool.config.AnswerTimeout)
	defer cancel()
	if r.Deadline.Passed() {
		return Result{Tag: r.Tag, Err: transportError(ReasonNotSent, errTooLate)}
	}
	now := time.Now()
	n := &apns2.Notification{
		DeviceToken: r.Device.Hex(),
		Topic:       l.pool.config.Topic,
		Priority:    int(r.Priority),
		PushType:    apns2.PushTypeAlert,
		Payload:     payload.NewPayload().Badge(int(r.Badge)),
		Expiration:  time.Unix(l.pool.config.expiration(now), 0),
	}
	result := Result{Tag: r.Tag, WrittenAt: now}
	raw := new(rawAnswer)
	answer, err := l.client.PushWithContext(context.WithValue(ctx, rawAnswerKey{}, raw), n)
	if err != nil {
		result.Err = l.transportFailure(err)
		l.lost.Add(1)
		return result
	}
	if answer.Sent() && (len(raw.body) == 0 || answer.ApnsID != "") {
		if d, ok := r.Tag.(*directPush); ok {
			d.id = answer.ApnsID
		}
		l.prove()
		return result
	}
	result.Err = newError(answer.StatusCode, raw.body, answer.ApnsID, parseRetryAfter(raw.header.Get("retry-after"), now))
	if provesCredential(result.Err) {
		l.prove()
	}
	if l.pool.refusal(result.Err, l.cred, l.token.Load(), now) {
		l.drain()
	}
	return result
}

func (l *referenceLink) prove() {
	if !l.proven.Swap(true) {
		l.pool.proved()
	}
}

// transportFailure names what http2 says went wrong.
func (l *referenceLink) transportFailure(err error) *Error {
	var stream http2.StreamError
	var gone http2.GoAwayError
	switch {
	case errors.As(err, &stream) && stream.Code == http2.ErrCodeRefusedStream:
		return transportError(ReasonStreamRefused, err)
	case errors.As(err, &stream):
		l.drain()
		return transportError(ReasonStreamReset, err)
	case errors.As(err, &gone):
		reason, _ := parseErrorBody([]byte(gone.DebugData))
		l.fail(&goAwayError{code: gone.ErrCode, reason: reason, text: cleanText([]byte(gone.DebugData))})
		return transportError(ReasonGoneAway, err)
	case errors.Is(err, context.DeadlineExceeded):
		l.drain()
		return transportError(ReasonTimeout, err)
	case strings.Contains(err.Error(), "Transport received Server's graceful shutdown GOAWAY"):
		l.fail(err)
		return transportError(ReasonGoneAway, err)
	}
	l.fail(err)
	return transportError(ReasonConnectionLost, err)
}
