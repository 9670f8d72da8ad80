package daemon

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"badgerelay/auth"
	"badgerelay/cmd/badgerelay/internal/config"
	"badgerelay/cmd/internal/process"
	"badgerelay/relay"
	"badgerelay/relay/admin"
	"badgerelay/relay/ingest"
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
		d.ready.failing.Store(strings.Contains(part, "registry")) // as watchReadiness does
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
	want(http.StatusServiceUnavailable, "not ready: degraded, only known mailboxes are served: registry unavailable\n")
}

// failing is a registry whose database is out of reach.
type failing struct{ registry.Registry }

var errDatabase = errors.New("connect to user=relay database=badges on db1.example.com")

func (failing) CredentialsByX5T(context.Context, [20]byte) ([]auth.Credential, error) {
	return nil, errDatabase
}

func (failing) OnChange(func([]registry.Change)) func() { return func() {} }

func (failing) Counts(context.Context) (registry.Counts, error) {
	return registry.Counts{}, errDatabase
}

func (failing) ListOrganizations(context.Context, registry.OrganizationFilter, registry.Page) ([]registry.Organization, string, error) {
	return nil, "", errDatabase
}

// TestOnlyOperatorsSeeWhatTheDatabaseSays looks at everything that tells why the
// relay is not ready: it may name the database's host and user.
func TestOnlyOperatorsSeeWhatTheDatabaseSays(t *testing.T) {
	d := &daemon{registry: failing{}}
	var err error
	if d.relay, err = relay.New(relay.Config{Subscriptions: d.registry, Registerer: prometheus.NewRegistry()}); err != nil {
		t.Fatal(err)
	}
	if d.validator, err = auth.NewValidator(auth.Config{Keys: d.registry, Principal: (&config.Config{}).Principal(), Authorities: []string{"a"}}); err != nil {
		t.Fatal(err)
	}
	if d.server, err = ingest.New(ingest.Config{Relay: d.relay, Registry: d.registry, Validator: d.validator}); err != nil {
		t.Fatal(err)
	}
	if d.admin, err = admin.New(admin.Config{Relay: d.relay, Registry: d.registry, Agents: d.server}); err != nil {
		t.Fatal(err)
	}
	d.ready.set("")
	readyz, detail := d.readiness(t.Context())
	_, stranger := d.pageStatus(t.Context(), false)
	_, holder := d.pageStatus(t.Context(), true)
	for _, s := range []string{readyz, detail, stranger} {
		if strings.Contains(s, errDatabase.Error()) {
			t.Errorf("everybody is told %q", s)
		}
	}
	if !strings.Contains(readyz, "registry unavailable") || stranger != readyz {
		t.Errorf("readyz says %q and the page %q, want the same reason of both", readyz, stranger)
	}
	if admin := d.status(t.Context()).NotReadyReason; !strings.Contains(holder, errDatabase.Error()) || admin != holder {
		t.Errorf("who holds a key is told %q, and over the admin listener %q; want the cause in both", holder, admin)
	}
}
