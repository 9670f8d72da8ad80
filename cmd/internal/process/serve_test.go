package process

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

func TestProfilesAreForLoopbackOnly(t *testing.T) {
	for profiles, want := range map[bool]int{true: http.StatusOK, false: http.StatusNotFound} {
		w := httptest.NewRecorder()
		ops := Ops{Metrics: prometheus.NewRegistry(), Own: prometheus.NewRegistry(), Profiles: profiles}
		ops.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/debug/pprof/cmdline", nil))
		if w.Code != want {
			t.Errorf("profiles %v: %d, want %d", profiles, w.Code, want)
		}
	}
}
