package daemon

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"badgerelay/auth"
	"badgerelay/cmd/badgerelay/internal/config"
	"badgerelay/cmd/badgerelay/internal/statuspage"
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
	d := &daemon{registry: r, Daemon: process.Daemon{Metrics: prometheus.NewRegistry()}}
	handler := process.Ops{Metrics: prometheus.NewRegistry(), Own: d.Metrics, Ready: d.readiness}.Handler()
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

var errDatabase = fmt.Errorf("%w: connect to user=relay database=badges on db1.example.com", registry.ErrUnavailable)

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
	d := &daemon{registry: failing{}, serving: make(chan struct{})}
	close(d.serving)
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
	if d.admin, err = admin.New(admin.Config{Relay: d.relay, Registry: d.registry, Agents: d.server, Status: d.status}); err != nil {
		t.Fatal(err)
	}
	d.ready.set("")
	readyz, detail := d.readiness(t.Context())
	page := (&statuspage.Page{Admin: d.adminService, Keys: &d.pageKeys}).Handlers()
	key, _ := d.pageKeys.Create()
	ask := func(path, key string) string {
		r := httptest.NewRequest(http.MethodGet, path, nil)
		if key != "" {
			r.Header.Set("Authorization", "Bearer "+key)
		}
		w := httptest.NewRecorder()
		page[path](w, r)
		return w.Body.String()
	}
	for _, path := range []string{"/status", "/status/json"} {
		if stranger := ask(path, ""); strings.Contains(stranger, errDatabase.Error()) || !strings.Contains(stranger, readyz) {
			t.Errorf("%s tells everybody %q, want no more than readyz does", path, stranger)
		}
		if holder := ask(path, key); !strings.Contains(holder, errDatabase.Error()) {
			t.Errorf("%s tells who holds a key %q, want the cause", path, holder)
		}
	}
	if strings.Contains(readyz+detail, errDatabase.Error()) || !strings.Contains(readyz, "registry unavailable") {
		t.Errorf("readyz says %q %q", readyz, detail)
	}
}
