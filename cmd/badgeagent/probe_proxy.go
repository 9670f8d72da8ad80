package main

import (
	"bufio"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"golang.org/x/net/http/httpproxy"
)

// errProxy says no more of the value, in which a password may be.
var errProxy = errors.New("HTTPS_PROXY, or https_proxy, is not http://host:port")

// proxyFor returns the HTTP proxy through which gRPC reaches an address, as
// HTTPS_PROXY and NO_PROXY say; nil: none. A proxy that is none is errProxy; httpproxy
// takes something else from it, or passes over it.
func proxyFor(address string) (*url.URL, error) {
	environment := httpproxy.FromEnvironment()
	given := environment.HTTPSProxy
	environment.HTTPSProxy = "http://proxy"
	target := &url.URL{Scheme: "https", Host: address}
	if proxied, _ := environment.ProxyFunc()(target); given == "" || proxied == nil {
		return nil, nil //nolint:nilnil // no proxy is no error
	}
	if !strings.Contains(given, "://") {
		given = "http://" + given
	}
	proxy, err := url.Parse(given)
	if err != nil || proxy.Hostname() == "" || proxy.Scheme != "http" && proxy.Scheme != "https" {
		return nil, errProxy
	}
	return proxy, nil
}

// proxyAddress returns host:port of a proxy.
func proxyAddress(proxy *url.URL) string {
	port := proxy.Port()
	if port == "" {
		port = "80"
	}
	return net.JoinHostPort(proxy.Hostname(), port)
}

// tunnel asks the proxy at the other end of conn for a connection to address.
func tunnel(ctx context.Context, conn net.Conn, proxy *url.URL, address string) error {
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Now()) })
	defer stop()
	request := &http.Request{Method: http.MethodConnect, URL: &url.URL{Opaque: address}, Host: address, Header: make(http.Header)}
	if user := proxy.User; user != nil {
		password, _ := user.Password()
		request.Header.Set("Proxy-Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(user.Username()+":"+password)))
	}
	if err := request.Write(conn); err != nil {
		return fmt.Errorf("ask the proxy %s: %w", proxy.Host, err)
	}
	reader := bufio.NewReader(conn)
	answer, err := http.ReadResponse(reader, request) //nolint:bodyclose // after CONNECT the body is the connection itself
	switch {
	case err != nil:
		return fmt.Errorf("ask the proxy %s: %w", proxy.Host, err)
	case answer.StatusCode != http.StatusOK:
		return fmt.Errorf("the proxy %s answers %s", proxy.Host, answer.Status)
	case reader.Buffered() > 0:
		return errors.New("the proxy sends bytes before the relay's")
	}
	return nil
}
