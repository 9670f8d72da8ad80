package daemon

import (
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"badgerelay/cmd/internal/process"
	"badgerelay/relay/registry"
)

func TestReadyzGivesItsReason(t *testing.T) {
	r, err := registry.OpenSQLite(t.Context(), registry.SQLiteConfig{Path: filepath.Join(t.TempDir(), "r.db")})
	if err != nil {
		t.Fatal(err)
	}
	d := &daemon{registry: r, metrics: prometheus.NewRegistry()}
	handler := process.Ops{Metrics: prometheus.NewRegistry(), Own: d.metrics, Ready: d.readiness}.Handler()
	readyz := func() (int, string) {
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/readyz", nil))
		return w.Code, w.Body.String()
	}
	metrics := prometheus.NewRegistry()
	metrics.MustRegister(d.ready.metric())
	want := func(code int, part string) {
		t.Helper()
		d.ready.unwell.Store(strings.Contains(part, "registry")) // as watchReadiness does
		found, err := metrics.Gather()
		if err != nil || (found[0].GetMetric()[0].GetGauge().GetValue() == 1) != (code == http.StatusOK) {
			t.Errorf("ready metric = %v, %v, want 1 only for %d", found, err, http.StatusOK)
		}
		if got, body := readyz(); got != code || !strings.HasPrefix(body, part) {
			t.Errorf("readyz = %d %q, want %d %q", got, body, code, part)
		}
	}
	want(http.StatusServiceUnavailable, "not ready: starting")
	d.ready.set("")
	want(http.StatusOK, "ready")
	d.ready.set("draining")
	want(http.StatusServiceUnavailable, "not ready: draining")
	d.ready.set("")
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	want(http.StatusServiceUnavailable, "not ready: degraded, only known mailboxes are served: registry unavailable")
}
