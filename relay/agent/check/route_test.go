package check

import (
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestRouteIsWhatTheEnvironmentSays(t *testing.T) {
	for _, test := range []struct{ proxy, without, first string }{
		{"", "", "relay.test:443"},
		{"http://proxy.test:3128", "", "proxy.test:3128"},
		{"proxy.test", "", "proxy.test:80"},
		{"http://proxy.test:3128", "relay.test", "relay.test:443"},
	} {
		t.Setenv("HTTPS_PROXY", test.proxy)
		t.Setenv("NO_PROXY", test.without)
		route, err := RouteTo("relay.test:443")
		if err != nil || route.FirstHop() != test.first || route.Proxied() != (test.first != "relay.test:443") {
			t.Errorf("proxy %q, not for %q: by %s, %v; want %s", test.proxy, test.without, route.FirstHop(), err, test.first)
		}
	}
	t.Setenv("NO_PROXY", "")
	for _, none := range []string{"http://proxy:port", "ftp://proxy:21", "http://"} {
		t.Setenv("HTTPS_PROXY", none)
		if _, err := RouteTo("relay.test:443"); !errors.Is(err, ErrProxy) {
			t.Errorf("proxy %q: %v, want ErrProxy", none, err)
		}
	}
}

// TestDialThroughAProxy has a proxy that knows one address and one user.
func TestDialThroughAProxy(t *testing.T) {
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, password, _ := (&http.Request{Header: http.Header{"Authorization": r.Header["Proxy-Authorization"]}}).BasicAuth()
		if r.Method != http.MethodConnect || r.Host != "relay.invalid:443" || user != "ann" || password != "secret" {
			http.Error(w, "no", http.StatusForbidden)
			return
		}
		conn, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\n") // the other end tells
		_, _ = io.Copy(conn, conn)
		_ = conn.Close()
	}))
	defer proxy.Close()
	t.Setenv("NO_PROXY", "")
	dial := func(user, address string) (net.Conn, error) {
		t.Helper()
		t.Setenv("HTTPS_PROXY", strings.Replace(proxy.URL, "http://", "http://"+user+"@", 1))
		route, err := RouteTo(address)
		if err != nil {
			t.Fatal(err)
		}
		return route.Dial(t.Context())
	}
	conn, err := dial("ann:secret", "relay.invalid:443")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	echo := make([]byte, 5)
	if _, err := io.WriteString(conn, "hello"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(conn, echo); err != nil || string(echo) != "hello" {
		t.Errorf("got %q, %v, want what was sent", echo, err)
	}
	for user, address := range map[string]string{"bob:secret": "relay.invalid:443", "ann:secret": "other.invalid:443"} {
		if _, err := dial(user, address); err == nil || !strings.Contains(err.Error(), "answers 403 Forbidden") || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s to %s: %v, want the proxy's refusal", user, address, err)
		}
	}
}
