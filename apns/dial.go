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
	"slices"
	"time"

	"golang.org/x/net/http2"
)

// dialTries is how many of a host's addresses one attempt tries; ours.
const dialTries = 3

// connect opens one connection and makes a link of it. used counts the
// connections to each address, so that they spread.
func (p *Pool) connect(ctx context.Context, cred Credential, used map[netip.Addr]int) (link, netip.Addr, error) {
	ctx, cancel := context.WithTimeout(ctx, p.config.ConnectTimeout)
	defer cancel()
	raw, addr, err := p.dial(ctx, used)
	if err != nil {
		return nil, addr, fmt.Errorf("connect to apns: %w", err)
	}
	nc, err := p.secure(ctx, raw, cred)
	if err != nil {
		_ = raw.Close() // the handshake's error says more
		return nil, addr, fmt.Errorf("connect to apns: %w", err)
	}
	l, err := p.newLink(nc, cred)
	if err != nil {
		_ = nc.Close() // the same
		return nil, addr, fmt.Errorf("connect to apns: %w", err)
	}
	return l, addr, nil
}

// dial opens the transport, through the proxy if there is one.
func (p *Pool) dial(ctx context.Context, used map[netip.Addr]int) (net.Conn, netip.Addr, error) {
	open := p.config.Dial
	if open == nil {
		open = (&net.Dialer{Timeout: p.config.ConnectTimeout / dialTries}).DialContext
	}
	if p.config.Proxy != nil {
		// The proxy resolves the name.
		nc, err := p.dialProxy(ctx, open)
		return nc, netip.Addr{}, err
	}
	host, port, err := net.SplitHostPort(p.config.Addr)
	if err != nil {
		return nil, netip.Addr{}, err
	}
	if p.config.Dial != nil && p.config.Lookup == nil {
		nc, err := open(ctx, "tcp", p.config.Addr)
		return nc, netip.Addr{}, err
	}
	addrs, err := p.lookup(ctx, host)
	if err != nil {
		return nil, netip.Addr{}, err
	}
	// The least used first, chance among equals.
	for i := len(addrs) - 1; i > 0; i-- {
		j := p.config.Random(int64(i + 1))
		addrs[i], addrs[j] = addrs[j], addrs[i]
	}
	slices.SortStableFunc(addrs, func(a, b netip.Addr) int { return used[a] - used[b] })
	var failures []error
	for _, addr := range addrs[:min(len(addrs), dialTries)] {
		nc, err := open(ctx, "tcp", net.JoinHostPort(addr.String(), port))
		if err == nil {
			return nc, addr, nil
		}
		failures = append(failures, err)
	}
	return nil, netip.Addr{}, errors.Join(failures...)
}

// lookup resolves the host anew, as Apple asks before each connection
// ("Sending notification requests to APNs", read 2026-11). Go's resolver
// caches nothing.
func (p *Pool) lookup(ctx context.Context, host string) ([]netip.Addr, error) {
	if addr, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{addr}, nil
	}
	find := p.config.Lookup
	if find == nil {
		find = func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		}
	}
	addrs, err := find(ctx, host)
	if err == nil && len(addrs) == 0 {
		err = fmt.Errorf("look up %s: no addresses", host)
	}
	addrs = slices.Clone(addrs)
	for i := range addrs {
		addrs[i] = addrs[i].Unmap()
	}
	return addrs, err
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
		RootCAs:    p.config.RootCAs,
		NextProtos: []string{http2.NextProtoTLS},
		MinVersion: tls.VersionTLS12,
		// We write many pushes at once: full records from the start.
		DynamicRecordSizingDisabled: true,
	}
	if cred.Certificate != nil {
		config.Certificates = []tls.Certificate{*cred.Certificate}
	}
	nc := tls.Client(raw, config)
	if err := nc.HandshakeContext(ctx); err != nil {
		return nil, fmt.Errorf("make TLS handshake: %w", err)
	}
	// Observed (bloomberg/pushiko): APNs speaks HTTP/2 without ALPN as well.
	if proto := nc.ConnectionState().NegotiatedProtocol; proto != "" && proto != http2.NextProtoTLS {
		return nil, fmt.Errorf("make TLS handshake: peer chose protocol %q", proto)
	}
	return nc, nil
}

// dialProxy asks an HTTP proxy for a tunnel (RFC 9110, section 9.3.6).
func (p *Pool) dialProxy(ctx context.Context, open func(context.Context, string, string) (net.Conn, error)) (net.Conn, error) {
	proxy := p.config.Proxy
	nc, err := open(ctx, "tcp", proxyAddr(proxy))
	if err != nil {
		return nil, fmt.Errorf("dial proxy: %w", err)
	}
	// Ends a proxy that does not answer; stop is what ends the watch.
	stop := context.AfterFunc(ctx, func() { _ = nc.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	tunnel, err := p.openTunnel(ctx, nc)
	if err != nil {
		_ = nc.Close() // the reason is at hand
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
		secure := tls.Client(nc, &tls.Config{ServerName: proxy.Hostname(), RootCAs: p.config.RootCAs, MinVersion: tls.VersionTLS12})
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
