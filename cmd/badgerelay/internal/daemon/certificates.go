package daemon

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"badgerelay/cmd/badgerelay/internal/config"
)

// certificates are those of our own listeners, by the listener's name in the
// configuration. A reload swaps them under running listeners.
type certificates struct {
	mu   sync.Mutex // guards held; never held while files are read
	held map[string]*atomic.Pointer[tls.Certificate]
}

// load reads a listener's certificate and returns a configuration that always
// shows the newest one; nil where there is none.
func (c *certificates) load(name string, files config.TLS) (*tls.Config, error) {
	if files == (config.TLS{}) {
		return nil, nil
	}
	pair, err := tls.LoadX509KeyPair(files.CertificateFile, files.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("%s.tls: %w", name, err)
	}
	current := new(atomic.Pointer[tls.Certificate])
	current.Store(&pair)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.held == nil {
		c.held = map[string]*atomic.Pointer[tls.Certificate]{}
	}
	c.held[name] = current
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return current.Load(), nil },
	}, nil
}

// reread reads every listener's certificate again and returns what puts them
// in force; nothing has changed until that is called.
func (c *certificates) reread(next *config.Config) (apply func(), err error) {
	files := map[string]config.TLS{"listen": next.Listen.TLS, "admin": next.Admin.TLS, "metadata": next.MetadataTLS()}
	c.mu.Lock()
	held := maps.Clone(c.held)
	c.mu.Unlock()
	fresh := map[string]*tls.Certificate{}
	for name := range held {
		pair, err := tls.LoadX509KeyPair(files[name].CertificateFile, files[name].KeyFile)
		if err != nil {
			return nil, fmt.Errorf("%s.tls: %w", name, err)
		}
		fresh[name] = &pair
	}
	return func() {
		for name, pair := range fresh {
			held[name].Store(pair)
		}
	}, nil
}

// leaf returns the certificate that a listener shows, nil if it has none.
func (c *certificates) leaf(name string) *x509.Certificate {
	c.mu.Lock()
	defer c.mu.Unlock()
	if held := c.held[name]; held != nil {
		return held.Load().Leaf
	}
	return nil
}

var certificateExpiry = prometheus.NewDesc("listener_certificate_expiry_timestamp_seconds",
	"When the certificate of a listener of ours expires.", []string{"listener"}, nil)

// Describe implements prometheus.Collector.
func (c *certificates) Describe(ch chan<- *prometheus.Desc) { ch <- certificateExpiry }

// Collect implements prometheus.Collector.
func (c *certificates) Collect(ch chan<- prometheus.Metric) {
	c.mu.Lock()
	held := maps.Clone(c.held)
	c.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(held)) {
		if leaf := held[name].Load().Leaf; leaf != nil {
			ch <- prometheus.MustNewConstMetric(certificateExpiry, prometheus.GaugeValue, float64(leaf.NotAfter.Unix()), name)
		}
	}
}
