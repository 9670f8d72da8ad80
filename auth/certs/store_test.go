package certs_test

import (
	"badgerelay/auth/certs"
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

func newStore(t *testing.T) (*certs.Store, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "certs")
	s, err := certs.OpenStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	return s, dir
}

func TestEnsure(t *testing.T) {
	s, dir := newStore(t)
	if _, err := s.Current(); !errors.Is(err, certs.ErrNoCertificate) {
		t.Errorf("empty store: got %v, want %v", err, certs.ErrNoCertificate)
	}
	first, created, err := s.Ensure(realm)
	if err != nil || !created {
		t.Fatalf("got created %v and %v, want a new one", created, err)
	}
	cert := first.Certificate
	if cert.Subject.CommonName != realm || cert.VerifyHostname(realm) != nil || len(cert.SubjectKeyId) != 20 ||
		first.Key.N.BitLen() != 2048 || cert.NotAfter.Sub(cert.NotBefore) < 5*365*24*time.Hour {
		t.Errorf("got certificate %v, want five years of 2048 bits for %s with a subject key identifier", cert.Subject, realm)
	}
	again, created, err := s.Ensure("other.example")
	if err != nil || created || certs.Thumbprint(again.Certificate) != certs.Thumbprint(cert) {
		t.Errorf("second: got created %v and %v, want the first again", created, err)
	}
	state, err := s.State()
	if err != nil || state.Current.FriendlyName != "Exchange S2S OAuth" || state.Next != nil || state.Previous != nil {
		t.Errorf("got state %+v and %v", state, err)
	}
	checkModes(t, dir)

	out := filepath.Join(t.TempDir(), "OAuthCert.cer")
	if err := certs.ExportDER(out, cert); err != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(out); err != nil || !bytes.Equal(data, cert.Raw) {
		t.Errorf("got export of %d bytes and %v, want the plain DER", len(data), err)
	}
	if got := certs.Thumbprint(cert); len(got) != 40 || got != strings.ToUpper(got) {
		t.Errorf("got thumbprint %q, want 40 upper-case digits", got)
	}
}

// checkModes checks that nobody else may read keys, and that nothing
// temporary is left.
func checkModes(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		want := os.FileMode(0o600)
		if strings.HasSuffix(e.Name(), ".cer") {
			want = 0o644
		}
		if got := info.Mode().Perm(); got != want {
			t.Errorf("%s: got mode %v, want %v", e.Name(), got, want)
		}
		if strings.HasPrefix(e.Name(), ".") && e.Name() != ".lock" {
			t.Errorf("%s is left over", e.Name())
		}
	}
}

// TestKeyForOthersIsRefused loads a key that was copied, or restored from a
// backup, without its mode.
func TestKeyForOthersIsRefused(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("a mode does not tell who may read there")
	}
	s, dir := newStore(t)
	if _, _, err := s.Ensure(realm); err != nil {
		t.Fatal(err)
	}
	keys, err := filepath.Glob(filepath.Join(dir, "*.key"))
	if err != nil || len(keys) != 1 {
		t.Fatalf("got keys %v, %v; want one", keys, err)
	}
	for mode, refused := range map[os.FileMode]bool{0o600: false, 0o640: false, 0o644: true, 0o602: true} {
		if err := os.Chmod(keys[0], mode); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Current(); errors.Is(err, certs.ErrCertificate) != refused || !refused && err != nil {
			t.Errorf("mode %04o: got %v, want it refused: %t", mode, err, refused)
		}
	}
}

func TestRollOver(t *testing.T) {
	s, dir := newStore(t)
	soon, later := time.Now().Add(47*time.Hour), time.Now().Add(49*time.Hour)
	if _, err := s.Stage(realm, later, true); !errors.Is(err, certs.ErrNoCertificate) {
		t.Errorf("stage without current: got %v, want %v", err, certs.ErrNoCertificate)
	}
	first, _, err := s.Ensure(realm)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Publish(true); !errors.Is(err, certs.ErrNoCertificate) {
		t.Errorf("publish without next: got %v, want %v", err, certs.ErrNoCertificate)
	}
	if _, err := s.Stage(realm, soon, false); !errors.Is(err, certs.ErrShortNotice) {
		t.Errorf("short notice: got %v, want %v", err, certs.ErrShortNotice)
	}
	next, err := s.Stage(realm, later, false)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Stage(realm, later, false); !errors.Is(err, certs.ErrStaged) {
		t.Errorf("staged twice: got %v, want %v", err, certs.ErrStaged)
	}
	if _, err := s.Publish(false); !errors.Is(err, certs.ErrNotEffective) {
		t.Errorf("too early: got %v, want %v", err, certs.ErrNotEffective)
	}
	if current, err := s.Current(); err != nil || !current.Certificate.Equal(first.Certificate) {
		t.Errorf("got another current certificate before publishing, or %v", err)
	}
	if _, err := s.Publish(true); err != nil {
		t.Fatal(err)
	}
	state, err := s.State()
	if err != nil || state.Next != nil || state.Current.Thumbprint != certs.Thumbprint(next.Certificate) ||
		state.Previous.Thumbprint != certs.Thumbprint(first.Certificate) || !state.Current.EffectiveAt.IsZero() {
		t.Fatalf("got state %+v and %v, want the next current and the first previous", state, err)
	}
	if _, err := s.Load(state.Previous); err != nil {
		t.Errorf("previous: got %v, want it loaded", err)
	}
	if overlap := time.Until(state.Previous.RetireAt); overlap < 47*time.Hour || overlap > 48*time.Hour {
		t.Errorf("previous is to retire in %v, want 48 hours", overlap)
	}
	if err := s.ClearPrevious(false); !errors.Is(err, certs.ErrOverlap) {
		t.Errorf("cleared in the overlap: got %v, want %v", err, certs.ErrOverlap)
	}
	if err := s.ClearPrevious(true); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, state.Previous.Thumbprint+".key")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v, want the previous key deleted", err)
	}
	if err := s.ClearPrevious(true); !errors.Is(err, certs.ErrNoCertificate) {
		t.Errorf("cleared twice: got %v, want %v", err, certs.ErrNoCertificate)
	}
	checkModes(t, dir)
}

// TestTwoRollOversInARow keeps the first certificate, which may be the only one that the
// relay knows, until its overlap is over or somebody confirms; then its key is gone too.
func TestTwoRollOversInARow(t *testing.T) {
	s, dir := newStore(t)
	first, _, err := s.Ensure(realm)
	if err != nil {
		t.Fatal(err)
	}
	past := time.Now().Add(-time.Hour)
	stage := func() {
		t.Helper()
		if _, err := s.Stage(realm, past, true); err != nil {
			t.Fatal(err)
		}
	}
	stage()
	if _, err := s.Publish(false); err != nil {
		t.Fatal(err)
	}
	stage()
	if _, err := s.Publish(false); !errors.Is(err, certs.ErrOverlap) {
		t.Errorf("published in the overlap: got %v, want %v", err, certs.ErrOverlap)
	}
	if state, err := s.State(); err != nil || state.Next == nil || state.Previous.Thumbprint != certs.Thumbprint(first.Certificate) {
		t.Fatalf("got state %+v and %v, want the first one kept", state, err)
	}
	stage() // in the place of the one that is staged, whose key goes
	if _, err := s.Publish(true); err != nil {
		t.Fatal(err)
	}
	state, err := s.State()
	if err != nil {
		t.Fatal(err)
	}
	checkKeys(t, dir, state.Current.Thumbprint, state.Previous.Thumbprint)
}

// checkKeys checks that there are the keys of these certificates and no others.
func checkKeys(t *testing.T, dir string, want ...string) {
	t.Helper()
	keys, err := filepath.Glob(filepath.Join(dir, "*.key"))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, key := range keys {
		got = append(got, strings.TrimSuffix(filepath.Base(key), ".key"))
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("got keys of %v, want of %v", got, want)
	}
}

func TestReschedule(t *testing.T) {
	s, _ := newStore(t)
	soon, later := time.Now().Add(47*time.Hour).UTC(), time.Now().Add(49*time.Hour).UTC()
	if err := s.Reschedule(later, true); !errors.Is(err, certs.ErrNoCertificate) {
		t.Errorf("without next: got %v, want %v", err, certs.ErrNoCertificate)
	}
	if _, _, err := s.Ensure(realm); err != nil {
		t.Fatal(err)
	}
	next, err := s.Stage(realm, later, false)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Reschedule(soon, false); !errors.Is(err, certs.ErrShortNotice) {
		t.Errorf("short notice: got %v, want %v", err, certs.ErrShortNotice)
	}
	if err := s.Reschedule(soon, true); err != nil {
		t.Fatal(err)
	}
	state, err := s.State()
	if err != nil || !state.Next.EffectiveAt.Equal(soon) || state.Next.Thumbprint != certs.Thumbprint(next.Certificate) {
		t.Errorf("got %+v and %v, want the same certificate at %v", state.Next, err, soon)
	}
	if err := s.Reschedule(soon, false); err != nil {
		t.Errorf("the same date again: %v, want nothing to do", err)
	}
}

// A store that can't be read is an error and stays as it is: a key that was
// registered somewhere must not be replaced by accident.
func TestStoreDamaged(t *testing.T) {
	for _, test := range []struct {
		name   string
		damage func(t *testing.T, dir, thumbprint string)
	}{
		{"state", func(t *testing.T, dir, _ string) { write(t, filepath.Join(dir, "state.json"), "{") }},
		{"key gone", func(t *testing.T, dir, tp string) { remove(t, filepath.Join(dir, tp+".key")) }},
		{"certificate cut", func(t *testing.T, dir, tp string) { write(t, filepath.Join(dir, tp+".cer"), "x") }},
		{"thumbprint a path", func(t *testing.T, dir, tp string) {
			write(t, filepath.Join(dir, "state.json"), `{"current":{"thumbprint":"../`+tp[3:]+`"}}`)
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			s, dir := newStore(t)
			pair, _, err := s.Ensure(realm)
			if err != nil {
				t.Fatal(err)
			}
			test.damage(t, dir, certs.Thumbprint(pair.Certificate))
			before, _ := os.ReadFile(filepath.Join(dir, "state.json"))
			if _, _, err := s.Ensure(realm); err == nil {
				t.Error("got no error, want one")
			}
			if after, _ := os.ReadFile(filepath.Join(dir, "state.json")); !bytes.Equal(before, after) {
				t.Errorf("got state %s, want it untouched", after)
			}
		})
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}

// A crash between the new files and the state leaves files that nobody names;
// they change nothing.
func TestStoreAfterCrash(t *testing.T) {
	s, dir := newStore(t)
	pair, _, err := s.Ensure(realm)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, ".state.json-123"), "{")
	write(t, filepath.Join(dir, strings.Repeat("A", 40)+".key"), "half a k")
	again, created, err := s.Ensure(realm)
	if err != nil || created || !again.Certificate.Equal(pair.Certificate) {
		t.Errorf("got created %v and %v, want the certificate from before", created, err)
	}
}
