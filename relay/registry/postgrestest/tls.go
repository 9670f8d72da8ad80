package postgrestest

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
)

// StartTLS makes a server that also answers on TCP at localhost, with a
// certificate and its key, PEM both, and returns the port. It ends with the
// test, which needs it as Need says.
func StartTLS(t testing.TB, certificate, key []byte) (s *Server, port string) {
	t.Helper()
	s = belongs(t, func(...string) (p *Private, err error) {
		if p, err = prepare(); err != nil {
			return nil, err
		}
		if p.port, err = freePort(); err != nil {
			return nil, err
		}
		settings := []string{"listen_addresses=localhost", "ssl=on"}
		for setting, data := range map[string][]byte{"ssl_cert_file": certificate, "ssl_key_file": key} {
			path := filepath.Join(p.dir, setting)
			if err := os.WriteFile(path, data, 0o600); err != nil {
				return nil, err
			}
			if os.Geteuid() == 0 {
				if err := os.Chown(path, nobody, nogroup); err != nil {
					return nil, fmt.Errorf("give PostgreSQL its certificate: %w", err)
				}
			}
			settings = append(settings, setting+"="+path)
		}
		return p, p.create(settings...)
	})
	return s, s.port
}

// freePort returns a port of TCP that nobody has now.
func freePort() (string, error) {
	l, err := net.Listen("tcp", "localhost:0")
	if err != nil {
		return "", err
	}
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		return "", err
	}
	return port, l.Close()
}
