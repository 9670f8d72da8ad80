package process

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
)

func TestKnownHosts(t *testing.T) {
	handler := KnownHosts(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { Answer(w, http.StatusOK, "served") }), "Relay.example")
	for host, want := range map[string]int{
		"localhost": 200, "localhost:9464": 200, "LOCALHOST.:9464": 200, "127.0.0.1": 200, "127.9.9.9:9464": 200, "[::1]:9464": 200, "[::1]": 200,
		"relay.example": 200, "relay.EXAMPLE:9464": 200, "10.1.2.3:9464": 200, "": 200,
		"evil.example": 421, "evil.example:9464": 421, "localhost.evil.example": 421, "10.1.2.4": 421, "127.0.0.1.evil.example": 421,
		"relay.example.evil": 421, "[::ffff:10.1.2.4]": 421, "0": 421, "2130706433": 421,
	} {
		r := httptest.NewRequest(http.MethodGet, "/metrics", nil)
		r.Host = host
		r = r.WithContext(context.WithValue(t.Context(), http.LocalAddrContextKey, &net.TCPAddr{IP: net.IPv4(10, 1, 2, 3), Port: 9464}))
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		if w.Code != want {
			t.Errorf("Host %q: %d, want %d", host, w.Code, want)
		}
	}
}
