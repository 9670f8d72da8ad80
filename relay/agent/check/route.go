package check

import (
	"bufio"
	"cmp"
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

// ErrProxy says no more of the value, in which a password may be.
var ErrProxy = errors.New("HTTPS_PROXY, or https_proxy, is not http://host:port")

// Route is how gRPC comes to an address: straight, or through an HTTP proxy.
type Route struct {
	address string
	proxy   *url.URL // nil: none
}

// RouteTo returns the route to an address, as HTTPS_PROXY and NO_PROXY say. A proxy that
// is none is ErrProxy; httpproxy takes something else from it, or passes over it.
func RouteTo(address string) (Route, error) {
	environment := httpproxy.FromEnvironment()
	given := environment.HTTPSProxy
	environment.HTTPSProxy = "http://proxy"
	target := &url.URL{Scheme: "https", Host: address}
	if proxied, _ := environment.ProxyFunc()(target); given == "" || proxied == nil {
		return Route{address: address}, nil
	}
	if !strings.Contains(given, "://") {
		given = "http://" + given
	}
	proxy, err := url.Parse(given)
	if err != nil || proxy.Hostname() == "" || proxy.Scheme != "http" && proxy.Scheme != "https" {
		return Route{}, ErrProxy
	}
	return Route{address, proxy}, nil
}

// Proxied reports whether it leads through a proxy, which looks up the address's name.
func (r Route) Proxied() bool { return r.proxy != nil }

// FirstHop is where one connects to: the address, or the proxy's.
func (r Route) FirstHop() string {
	if r.proxy == nil {
		return r.address
	}
	return net.JoinHostPort(r.proxy.Hostname(), cmp.Or(r.proxy.Port(), "80"))
}

// Dial connects to the address.
func (r Route) Dial(ctx context.Context) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", r.FirstHop())
	if err != nil || r.proxy == nil {
		return conn, err
	}
	if err := tunnel(ctx, conn, r.proxy, r.address); err != nil {
		_ = conn.Close() // the first error is told
		return nil, err
	}
	return conn, nil
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
