package enrolment

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"badgerelay/auth/authmetadata"
	"badgerelay/auth/certs"
	"badgerelay/relay/agent"
)

// empty returns a directory that is not there yet, and where it was made.
func empty(t *testing.T) (d Directory, protected *[]string) {
	t.Helper()
	protected = &[]string{}
	return Directory{Path: filepath.Join(t.TempDir(), "agent"), Protect: func(path string) error {
		*protected = append(*protected, path)
		return nil
	}}, protected
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestReadingMakesNothing(t *testing.T) {
	d, _ := empty(t)
	_, noServer := d.AuthServer()
	_, noProxy := d.Proxy()
	_, noCertificate := d.Current()
	if !errors.Is(noServer, ErrNoAuthServer) || !errors.Is(noProxy, ErrNoProxy) || !errors.Is(noCertificate, ErrNoCertificate) {
		t.Errorf("got %v, %v, %v; want that each is missing", noServer, noProxy, noCertificate)
	}
	if r, err := d.Rollover(); err != nil || r != (Rollover{}) {
		t.Errorf("got %+v, %v; want no certificates", r, err)
	}
	if there, err := exists(d.Path); there || err != nil {
		t.Error("the directory was made")
	}
}

func TestWhatIsWrongInAFileIsToldWithItsName(t *testing.T) {
	d, _ := empty(t)
	ok(t, os.Mkdir(d.Path, 0o700))
	ok(t, os.WriteFile(d.path(authServerFile), []byte("{"), 0o600))
	if _, err := d.AuthServer(); err == nil || errors.Is(err, ErrNoAuthServer) || !strings.Contains(err.Error(), d.path(authServerFile)) {
		t.Errorf("got %v, want an error with the file's name", err)
	}
}

// TestAgentIDIsKept is the same over restarts, and another in another directory.
func TestAgentIDIsKept(t *testing.T) {
	d, protected := empty(t)
	first, err := d.AgentID("mx 1")
	ok(t, err)
	if !strings.HasPrefix(first, "mx1-") {
		t.Errorf("the id is %q, want the host's name and something random", first)
	}
	if !slices.Equal(*protected, []string{d.Path}) {
		t.Errorf("%v were protected, want the directory once", *protected)
	}
	again, err := d.AgentID("mx2")
	ok(t, err)
	if again != first {
		t.Errorf("the next start calls itself %q, want %q", again, first)
	}
	other, _ := empty(t)
	if id, err := other.AgentID("mx1"); err != nil || id == first {
		t.Errorf("agents of two directories are called %q and %q, %v", first, id, err)
	}
	if id := NewAgentID(strings.Repeat("x", 200)); len(id) > agent.MaxAgentIDBytes {
		t.Errorf("an id has %d bytes", len(id))
	}
}

func TestProxyIsDatedWhenItChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, _ := empty(t)
		p := NewProxy()
		next := *p
		next.Enabled, next.Organization, next.URI = true, "fabrikam.com", "https://relay.test:8443"
		time.Sleep(time.Hour)
		ok(t, d.ChangeProxy(p, &next))
		kept, err := d.Proxy()
		ok(t, err)
		if *kept != next || !kept.Valid() || kept.WhenChanged.Sub(kept.WhenCreated) != time.Hour || p.Valid() {
			t.Errorf("kept %+v, want %+v, changed an hour later, and valid", kept, next)
		}
		same := *kept
		time.Sleep(time.Hour)
		ok(t, d.ChangeProxy(kept, &same))
		if again, err := d.Proxy(); err != nil || *again != next {
			t.Errorf("kept %+v, %v, want what was kept before", again, err)
		}
	})
}

// TestCertificates makes one, stages the next and takes over for another domain.
func TestCertificates(t *testing.T) {
	d, _ := empty(t)
	first, created, err := d.Ensure("fabrikam.com")
	ok(t, err)
	if again, remade, err := d.Ensure("fabrikam.com"); err != nil || !created || remade || again.Thumbprint() != first.Thumbprint() {
		t.Errorf("a second certificate is made, or none: %v, %v, %v", created, remade, err)
	}
	store, err := d.Certificates()
	ok(t, err)
	effective := time.Now().Add(72 * time.Hour).Truncate(time.Second)
	staged, err := store.Stage("fabrikam.com", effective, false)
	ok(t, err)
	r, err := d.Rollover()
	ok(t, err)
	if r.Current.Thumbprint() != first.Thumbprint() || r.Next.Thumbprint() != certs.Thumbprint(staged.Certificate) || !r.Effective.Equal(effective) || r.Previous != nil {
		t.Errorf("got %+v, want the first and the staged one", r)
	}
	other, err := d.Replace("contoso.com")
	ok(t, err)
	if r, err = d.Rollover(); err != nil || other.Domain != "contoso.com" || other.PublicKeySize() != 2048 ||
		r.Current.Thumbprint() != other.Thumbprint() || r.Previous.Thumbprint() != first.Thumbprint() || r.Retire.IsZero() {
		t.Errorf("got %+v, %v, want the other one, and the first as the previous", r, err)
	}
}

func TestAuthServerIsWhatItsDocumentSays(t *testing.T) {
	document := &authmetadata.Document{
		Realm: "fabrikam.com", ServiceName: "P", Issuer: "P@fabrikam.com",
		AllowedAudiences: []string{"Q/other@fabrikam.com", "P@fabrikam.com", "p/relay.test:8443@fabrikam.com"},
		Endpoints:        []authmetadata.Endpoint{{Location: "https://relay.test", Protocol: "grpc"}, {Location: "https://relay.test:1", Protocol: "SOAP"}, {Location: "https://[::1]:8443", Protocol: "gRPC"}},
	}
	s, err := describe(document, "https://relay.test/metadata")
	ok(t, err)
	if s.Audience != "p/relay.test:8443@fabrikam.com" || s.Authority != "relay.test:8443" || s.Principal != "P" || !slices.Equal(s.Relays, []string{"relay.test:443", "[::1]:8443"}) {
		t.Errorf("got %+v", s)
	}
	d, _ := empty(t)
	ok(t, d.KeepAuthServer(s))
	if kept, err := d.AuthServer(); err != nil || !kept.Same(s) {
		t.Errorf("kept %+v, %v, want %+v", kept, err, s)
	}
	other := *s
	other.Relays = other.Relays[:1]
	if other.Same(s) {
		t.Error("a relay less is no difference")
	}
	document.AllowedAudiences = document.AllowedAudiences[:2]
	if _, err := describe(document, "https://relay.test/metadata"); err == nil {
		t.Error("a document without an audience is taken")
	}
}
