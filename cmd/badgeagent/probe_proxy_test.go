package main

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"badgerelay/cmd/internal/command"
	"badgerelay/relay/agent/check"
)

// TestProbeThroughAProxy reaches the relay as the daemon does where only a proxy
// leads to it: by a name that nobody but the proxy knows.
func TestProbeThroughAProxy(t *testing.T) {
	c, r := enrolled(t)
	web, err := url.Parse(r.endpoint)
	must(t, err)
	var forbidden atomic.Bool
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		user, password, _ := parseBasic(request.Header.Get("Proxy-Authorization"))
		if request.Method != http.MethodConnect || request.Host != "relay.invalid:443" || user != "ann" || password != "secret" || forbidden.Load() {
			http.Error(w, "no", http.StatusForbidden)
			return
		}
		relay, err := net.Dial("tcp", web.Host)
		if err != nil {
			http.Error(w, "no", http.StatusBadGateway)
			return
		}
		conn, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\n")
		go func() { _, _ = io.Copy(relay, conn); _ = relay.Close() }()
		_, _ = io.Copy(conn, relay)
		_ = conn.Close()
	}))
	defer proxy.Close()
	t.Setenv("HTTPS_PROXY", strings.Replace(proxy.URL, "http://", "http://ann:secret@", 1))
	t.Setenv("NO_PROXY", "")

	// The relay's certificate has another name: TLS is where it ends, with the
	// relay's own certificate.
	c.fails("TLS", "relay.invalid", "--relay", "relay.invalid:443")
	_, out := c.probe("--relay", "relay.invalid:443")
	for _, s := range out.Stages {
		switch s.Name {
		case "Name resolution", "TCP":
			if s.ResultType != command.Succeeded {
				t.Errorf("stage %+v", s)
			}
		}
	}
	forbidden.Store(true)
	c.fails("TCP", "the proxy", "--relay", "relay.invalid:443")
	for _, none := range []string{"http://ann:secret@proxy:port", "http://ann:se/cret@proxy", "ann:%ofsecret@proxy:3128", "proxy:port", "pro xy:3128", "ftp://proxy:21", "http://"} {
		t.Setenv("HTTPS_PROXY", none)
		code, out := c.probe("--relay", "relay.invalid:443")
		if code != command.Misused || !strings.Contains(out.Error, check.ErrProxy.Error()) || strings.Contains(out.Error+out.Exception, "cret") {
			t.Errorf("proxy %q: exit code %d, %+v", none, code, out)
		}
	}
	t.Setenv("HTTPS_PROXY", "http://porxy.invalid:3128")
	c.fails("Name resolution", "there is no host of the name in porxy.invalid:3128; check HTTPS_PROXY", "--relay", "relay.invalid:443")
	t.Setenv("NO_PROXY", "relay.invalid")
	c.fails("Name resolution", "relay.invalid", "--relay", "relay.invalid:443")
}

// parseBasic reads a header of basic authentication.
func parseBasic(header string) (user, password string, ok bool) {
	return (&http.Request{Header: http.Header{"Authorization": {header}}}).BasicAuth()
}
