package process

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"badgerelay/cmd/internal/configfile"
)

// Certificates are those of a daemon's own listeners, by the listener's name in the
// configuration. A reload swaps them under running listeners. The zero value has
// none. Safe for concurrent use.
type Certificates struct{ held sync.Map }

// Load reads a listener's certificate and returns a configuration that always
// shows the newest one; nil where there is none.
func (c *Certificates) Load(name string, files configfile.TLS) (*tls.Config, error) {
	if files.Empty() {
		return nil, nil
	}
	pair, err := readPair(name, files)
	if err != nil {
		return nil, err
	}
	c.Show(name, pair)
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c.of(name), nil },
	}, nil
}

// Reread reads the certificates of listeners again, from files by the listeners' names,
// and returns what puts them in force; nothing has changed until that is called. A
// listener that shows none goes on so.
func (c *Certificates) Reread(files map[string]configfile.TLS) (apply func(), err error) {
	fresh := map[string]*tls.Certificate{}
	for name, pair := range files {
		if c.of(name) == nil {
			continue
		}
		if fresh[name], err = readPair(name, pair); err != nil {
			return nil, err
		}
	}
	return func() {
		for name, pair := range fresh {
			c.Show(name, pair)
		}
	}, nil
}

func readPair(name string, files configfile.TLS) (*tls.Certificate, error) {
	pair, err := tls.LoadX509KeyPair(files.CertificateFile, files.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("%s.tls: %w", name, err)
	}
	return &pair, nil
}

// Show has a listener show a certificate from now on.
func (c *Certificates) Show(name string, pair *tls.Certificate) { c.held.Store(name, pair) }

// Leaf returns the certificate that a listener shows, nil if it has none.
func (c *Certificates) Leaf(name string) *x509.Certificate {
	if held := c.of(name); held != nil {
		return held.Leaf
	}
	return nil
}

// of returns the certificate that a listener shows, nil if it has none.
func (c *Certificates) of(name string) *tls.Certificate {
	held, _ := c.held.Load(name)
	pair, _ := held.(*tls.Certificate)
	return pair
}

var certificateExpiry = prometheus.NewDesc("listener_certificate_expiry_timestamp_seconds",
	"When the certificate of a listener of ours expires.", []string{"listener"}, nil)

// Describe implements prometheus.Collector.
func (c *Certificates) Describe(ch chan<- *prometheus.Desc) { ch <- certificateExpiry }

// Collect implements prometheus.Collector.
func (c *Certificates) Collect(ch chan<- prometheus.Metric) {
	for name := range c.held.Range {
		if leaf := c.Leaf(name.(string)); leaf != nil {
			ch <- prometheus.MustNewConstMetric(certificateExpiry, prometheus.GaugeValue, float64(leaf.NotAfter.Unix()), name.(string))
		}
	}
}
