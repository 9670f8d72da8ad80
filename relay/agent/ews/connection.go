package ews

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"slices"
	"strings"
	"sync"
	"time"
)

// connection is one TCP connection to the server, for one request at a time: NTLM and
// Negotiate authenticate a TCP connection, not a request. So each has an http.Transport
// of its own, which shares none with others and speaks HTTP/1.1 only. It is not safe for
// concurrent use.
type connection struct {
	config     *Config
	transport  *http.Transport
	generation int      // of the credentials that conn was authenticated with
	conn       net.Conn // the one that is authenticated; nil: none
	each       bool     // the server asks for authentication with each request
}

func newConnection(c *Config) *connection { return &connection{config: c, transport: c.newTransport()} }

// newTransport returns one that verifies servers with what holds now.
func (c *Config) newTransport() *http.Transport {
	verify := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.TLS != nil {
		verify = c.TLS().Clone()
	}
	return &http.Transport{
		Proxy: http.ProxyFromEnvironment, DialContext: c.dial, TLSClientConfig: verify, TLSHandshakeTimeout: c.timeout(), Protocols: http1(),
		MaxConnsPerHost: 1, MaxIdleConnsPerHost: 1, IdleConnTimeout: 90 * time.Second, MaxResponseHeaderBytes: 64 << 10,
		DisableCompression: true, // what compresses a stream holds it back
	}
}

func http1() *http.Protocols {
	p := new(http.Protocols)
	p.SetHTTP1(true)
	return p
}

// close ends the connection.
func (l *connection) close() {
	l.transport.CloseIdleConnections()
	l.conn = nil
}

// UnauthorizedError: the server does not let the agent in.
type UnauthorizedError struct {
	Scheme   string   // what was tried; empty: nothing that the server offers
	Offered  []string // by the server
	Complete bool     // the exchange went to its end
	Err      error    // what failed on this side; nil: the server refused
}

// Error names what was tried and offered.
func (e *UnauthorizedError) Error() string {
	switch offered := strings.Join(e.Offered, ", "); {
	case e.Err != nil:
		return fmt.Sprintf("authenticate with %s: %v", e.Scheme, e.Err)
	case !slices.Contains(e.Offered, e.Scheme):
		return fmt.Sprintf("the server does not offer %s (it offers %s)", e.Scheme, or(offered, "nothing"))
	default:
		return fmt.Sprintf("the server refuses the credentials (%s)", e.Scheme)
	}
}

// Unwrap returns what failed on this side.
func (e *UnauthorizedError) Unwrap() error { return e.Err }

// errSteps: NTLM's steps went over several connections.
var errSteps = errors.New("the connection changed between the steps of the authentication; whatever stands between must keep connections open")

// post sends a request and returns the server's answer, whose status is not
// 401. The caller closes its body. The error of a refusal is an
// *UnauthorizedError.
func (l *connection) post(ctx context.Context, url string, header http.Header, body []byte) (*http.Response, error) {
	var err error
	for range 2 { // a server may close a connection in the midst of it, once
		var answer *http.Response
		if answer, err = l.try(ctx, url, header, body); err == nil {
			return answer, nil
		}
		l.conn = nil
		if refused, ok := errors.AsType[*UnauthorizedError](err); !ok || !errors.Is(refused.Err, errSteps) {
			return nil, err
		}
		l.transport.CloseIdleConnections()
	}
	return nil, err
}

// maxSteps bounds the steps of an authentication. Ours: NTLM takes two, and
// one that begins without a token three.
const maxSteps = 5

func (l *connection) try(ctx context.Context, url string, header http.Header, body []byte) (*http.Response, error) {
	credentials, generation := l.config.credentials()
	if generation != l.generation {
		if l.generation != 0 { // the old ones' connection, and the old authorities
			l.transport.CloseIdleConnections()
			l.transport = l.config.newTransport()
		}
		l.generation, l.conn, l.each = generation, nil, false
	}
	scheme := credentials.Scheme()
	var exchange Exchange
	defer func() { closeIf(exchange) }()
	var step net.Conn // of the step before
	begin := l.conn == nil || l.each || scheme == Basic
	var token []byte
	for range maxSteps {
		if begin {
			var err error
			if exchange, err = credentials.Begin(ctx, host(url)); err == nil {
				token, err = exchange.Next(nil)
			}
			if err != nil {
				return nil, &UnauthorizedError{Scheme: scheme, Err: err}
			}
			begin = false
		}
		answer, conn, err := l.send(ctx, url, header, authorization(scheme, exchange, token), body)
		if err != nil {
			return nil, err
		}
		if answer.StatusCode != http.StatusUnauthorized {
			l.conn = conn
			return answer, nil
		}
		offered, challenge := challenges(answer.Header, scheme)
		drain(answer.Body)
		_ = answer.Body.Close() // what it said is read
		switch {
		case !slices.Contains(offered, scheme):
			return nil, &UnauthorizedError{Scheme: scheme, Offered: offered}
		case exchange == nil:
			l.each = l.conn == conn // authenticated, and asked again
			l.conn, begin, step = nil, true, nil
			continue
		case step != nil && step != conn:
			return nil, &UnauthorizedError{Scheme: scheme, Offered: offered, Err: errSteps}
		case len(challenge) == 0:
			return nil, &UnauthorizedError{Scheme: scheme, Offered: offered, Complete: step != nil || scheme != NTLM}
		}
		step = conn
		if token, err = exchange.Next(challenge); err != nil {
			return nil, &UnauthorizedError{Scheme: scheme, Offered: offered, Err: err}
		}
	}
	return nil, &UnauthorizedError{Scheme: scheme, Err: errors.New("it takes too many steps")}
}

// closeIf closes what has to be closed.
func closeIf(x any) {
	if c, ok := x.(io.Closer); ok {
		_ = c.Close() // it is of no use any more
	}
}

// send is one request; conn is the connection that it went over.
func (l *connection) send(ctx context.Context, url string, header http.Header, authorization string, body []byte) (answer *http.Response, conn net.Conn, err error) {
	trace := &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) { conn = i.Conn }}
	request, err := http.NewRequestWithContext(httptrace.WithClientTrace(ctx, trace), http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return nil, nil, err
	}
	request.Header = header.Clone()
	request.Header.Set("Content-Type", "text/xml; charset=utf-8")
	request.Header.Set("Accept", "text/xml")
	request.Header.Set("User-Agent", "badgeagent")
	// Each request may be sent twice, so a connection that the server has closed
	// meanwhile is no failure. The header itself is not sent (net/http,
	// Transport).
	request.Header["Idempotency-Key"] = nil
	if authorization != "" {
		request.Header.Set("Authorization", authorization)
	}
	answer, err = l.transport.RoundTrip(request)
	return answer, conn, err
}

func authorization(scheme string, exchange Exchange, token []byte) string {
	if exchange == nil {
		return ""
	}
	return scheme + " " + base64.StdEncoding.EncodeToString(token)
}

// challenges returns the schemes that a 401 offers, and what it says to ours.
func challenges(h http.Header, scheme string) (offered []string, challenge []byte) {
	for _, line := range h.Values("WWW-Authenticate") {
		for part := range strings.SplitSeq(line, ",") { // realm="a, b" makes a nonsense name, which nobody asks for
			name, rest, _ := strings.Cut(strings.TrimSpace(part), " ")
			if name == "" || strings.Contains(name, "=") {
				continue
			}
			for _, known := range []string{Basic, NTLM, Negotiate} {
				if strings.EqualFold(name, known) {
					name = known
				}
			}
			if !slices.Contains(offered, name) {
				offered = append(offered, name)
			}
			if name != scheme || name == Basic {
				continue
			}
			if data, err := base64.StdEncoding.DecodeString(strings.TrimSpace(rest)); err == nil && len(data) > 0 {
				challenge = data
			}
		}
	}
	return offered, challenge
}

// drain reads what is left of a short answer, so that its connection can be
// used again: the next step has to go over the same one.
func drain(body io.Reader) {
	_, _ = io.CopyN(io.Discard, body, 64<<10) // what is longer costs the connection
}

func (c *Config) dial(ctx context.Context, network, address string) (net.Conn, error) {
	if c.Dial != nil {
		return c.Dial(ctx, network, address)
	}
	return (&net.Dialer{Timeout: c.timeout()}).DialContext(ctx, network, address)
}

// cookies are what a server has set for the requests of a group: one of them
// is the affinity to a back end. They are safe for concurrent use.
type cookies struct {
	mu    sync.Mutex
	known map[string]string
}

// maxCookies bounds them. Ours: Exchange and a load balancer set a handful.
const maxCookies = 16

func (c *cookies) take(answer *http.Response) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, cookie := range answer.Cookies() {
		switch {
		case cookie.MaxAge < 0:
			delete(c.known, cookie.Name)
		case len(c.known) < maxCookies || c.known[cookie.Name] != "":
			if c.known == nil {
				c.known = make(map[string]string)
			}
			c.known[cookie.Name] = cookie.Value
		}
	}
}

func (c *cookies) value(name string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.known[name]
}

// header returns them as the value of a Cookie header.
func (c *cookies) header() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []string
	for name, value := range c.known {
		all = append(all, name+"="+value)
	}
	slices.Sort(all)
	return strings.Join(all, "; ")
}
