package process

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"badgerelay/auth/authtest"
	"badgerelay/cmd/internal/configfile"
)

// TestCertificatesAreRereadTogetherOrAlone renews the certificates of two listeners, and
// has one of them be gone.
func TestCertificatesAreRereadTogetherOrAlone(t *testing.T) {
	dir := t.TempDir()
	files := map[string]configfile.TLS{}
	write := func(name string, ends time.Time) {
		t.Helper()
		files[name] = configfile.TLS{CertificateFile: filepath.Join(dir, name+".crt"), KeyFile: filepath.Join(dir, name+".key")}
		if err := authtest.NewServer(name, ends, "localhost").Write(files[name].CertificateFile, files[name].KeyFile); err != nil {
			t.Fatal(err)
		}
	}
	soon, later := time.Now().Add(time.Hour).Truncate(time.Second), time.Now().Add(24*time.Hour).Truncate(time.Second)
	var c Certificates
	for _, name := range []string{"listen", "metadata"} {
		write(name, soon)
		if tls, err := c.Load(name, files[name]); err != nil || tls == nil {
			t.Fatalf("%s: %v, %v", name, tls, err)
		}
	}
	ends := func(listen, metadata time.Time, why string) {
		t.Helper()
		if got, other := c.Leaf("listen").NotAfter, c.Leaf("metadata").NotAfter; !got.Equal(listen) || !other.Equal(metadata) {
			t.Errorf("%s: they end on %v and %v, want %v and %v", why, got, other, listen, metadata)
		}
	}
	write("metadata", later)
	if err := os.Remove(files["listen"].CertificateFile); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Reread(files); err == nil {
		t.Error("a certificate that is gone was read")
	}
	ends(soon, soon, "together, and one is gone")
	apply, err := c.Reread(map[string]configfile.TLS{"metadata": files["metadata"], "local": {}})
	if err != nil {
		t.Fatal(err)
	}
	ends(soon, soon, "not applied yet")
	apply()
	ends(soon, later, "alone")
	if c.Leaf("local") != nil {
		t.Error("a listener without a certificate has one")
	}
}
