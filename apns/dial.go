package apns

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"time"

	"golang.org/x/net/http2"
)

// connectParts is by what ConnectTimeout is divided for one address; ours.
const connectParts = 3

// connect opens one connection to APNs. used counts the
// connections to each address, so that they spread.
func (p *Pool) connect(ctx context.Context, cred Credential, used map[netip.Addr]int) (conn, netip.Addr, error) {
	ctx, cancel := context.WithTimeout(ctx, p.config.ConnectTimeout)
	defer cancel()
	nc, addr, err := p.dial(ctx, cred, used)
	if err != nil {
		return nil, addr, fmt.Errorf("connect to apns: %w", err)
	}
	c, err := p.newConn(nc, cred)
	if err != nil {
		_ = nc.Close() // the error says more
		return nil, addr, fmt.Errorf("connect to apns: %w", err)
	}
	return c, addr, nil
}

// dial reaches APNs, through the proxy if there is one, and makes the TLS
// handshake. The name of either may have several addresses.
func (p *Pool) dial(ctx context.Context, cred Credential, used map[netip.Addr]int) (net.Conn, netip.Addr, error) {
	target := p.config.Addr
	if p.config.Proxy != nil {
		target = proxyAddr(p.config.Proxy) // it resolves APNs' name
	}
	if p.config.Dial != nil && p.config.Lookup == nil {
		nc, err := p.dialAt(ctx, target, cred, func() {})
		return nc, netip.Addr{}, err
	}
	host, port, err := net.SplitHostPort(target)
	if err != nil {
		return nil, netip.Addr{}, err
	}
	find := p.config.Lookup
	if find == nil {
		find = func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		}
	}
	addrs, err := p.reach.lookup(ctx, host, find)
	if err != nil {
		return nil, netip.Addr{}, err
	}
	addrs = p.reach.order(addrs, used, time.Now())
	return p.reach.race(ctx, addrs, func(ctx context.Context, addr netip.Addr, answered func()) (net.Conn, error) {
		return p.dialAt(ctx, net.JoinHostPort(addr.String(), port), cred, answered)
	})
}

// dialAt is dial at one address. It calls answered when that takes the
// connection.
func (p *Pool) dialAt(ctx context.Context, at string, cred Credential, answered func()) (net.Conn, error) {
	open := p.config.Dial
	if open == nil {
		open = (&net.Dialer{Timeout: p.config.ConnectTimeout / connectParts}).DialContext
	}
	raw, err := open(ctx, "tcp", at)
	if err != nil {
		return nil, err
	}
	answered()
	way := raw
	if p.config.Proxy != nil {
		if way, err = p.tunnel(ctx, raw); err != nil {
			_ = raw.Close() // the reason is at hand
			return nil, err
		}
	}
	nc, err := p.secure(ctx, way, cred)
	if err != nil {
		_ = raw.Close() // the handshake's error says more
		return nil, err
	}
	return nc, nil
}

// secure makes the TLS handshake. Source of the version: Apple, "Sending
// notification requests to APNs" (read 2026-11): TLS 1.2 or later.
func (p *Pool) secure(ctx context.Context, raw net.Conn, cred Credential) (net.Conn, error) {
	host, _, err := net.SplitHostPort(p.config.Addr)
	if err != nil {
		return nil, err
	}
	config := &tls.Config{
		ServerName: host,
		RootCAs:    p.roots.Load(),
		NextProtos: []string{http2.NextProtoTLS},
		MinVersion: tls.VersionTLS12,
		// We write many pushes at once: full records from the start.
		DynamicRecordSizingDisabled: true,
	}
	if cred.Certificate != nil {
		config.Certificates = []tls.Certificate{*cred.Certificate}
	}
	nc := tls.Client(newGuard(raw), config)
	if err := nc.HandshakeContext(ctx); err != nil {
		return nil, fmt.Errorf("make TLS handshake: %w", err)
	}
	// Observed (bloomberg/pushiko): APNs speaks HTTP/2 without ALPN as well.
	if proto := nc.ConnectionState().NegotiatedProtocol; proto != "" && proto != http2.NextProtoTLS {
		return nil, fmt.Errorf("make TLS handshake: peer chose protocol %q", proto)
	}
	return nc, nil
}

// tunnel asks the HTTP proxy at the other end for one (RFC 9110, section 9.3.6).
func (p *Pool) tunnel(ctx context.Context, nc net.Conn) (net.Conn, error) {
	// Ends a proxy that does not answer; stop is what ends the watch.
	stop := context.AfterFunc(ctx, func() { _ = nc.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	tunnel, err := p.openTunnel(ctx, nc)
	if err != nil {
		return nil, fmt.Errorf("ask proxy for a tunnel: %w", err)
	}
	return tunnel, nil
}

func proxyAddr(proxy *url.URL) string {
	port := proxy.Port()
	if port == "" {
		port = "80"
		if proxy.Scheme == "https" {
			port = "443"
		}
	}
	return net.JoinHostPort(proxy.Hostname(), port)
}

func (p *Pool) openTunnel(ctx context.Context, nc net.Conn) (net.Conn, error) {
	proxy := p.config.Proxy
	if proxy.Scheme == "https" {
		secure := tls.Client(nc, &tls.Config{ServerName: proxy.Hostname(), RootCAs: p.roots.Load(), MinVersion: tls.VersionTLS12})
		if err := secure.HandshakeContext(ctx); err != nil {
			return nil, err
		}
		nc = secure
	}
	request := &http.Request{
		Method: http.MethodConnect,
		URL:    &url.URL{Opaque: p.config.Addr},
		Host:   p.config.Addr,
		Header: make(http.Header),
	}
	if user := proxy.User; user != nil {
		password, _ := user.Password()
		request.Header.Set("Proxy-Authorization",
			"Basic "+base64.StdEncoding.EncodeToString([]byte(user.Username()+":"+password)))
	}
	if err := request.Write(nc); err != nil {
		return nil, err
	}
	br := bufio.NewReader(nc)
	answer, err := http.ReadResponse(br, request) //nolint:bodyclose // after CONNECT the body is the connection itself
	if err != nil {
		return nil, err
	}
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("proxy answered %s", answer.Status)
	}
	if br.Buffered() > 0 {
		// In TLS the client speaks first; whatever this is, it is not APNs.
		return nil, errors.New("proxy sent bytes before the tunnel's")
	}
	return nc, nil
}
