package configfile

import (
	"crypto/x509"
	"net"
	"slices"
	"strings"
)

// Foreign says of a listener's certificate which of the addresses by which clients
// reach it (host or host:port) it does not name, so that they refuse it; empty: it
// names them all.
func Foreign(certificate *x509.Certificate, addresses []string) string {
	var foreign []string
	for _, address := range addresses {
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			host = strings.Trim(address, "[]")
		}
		if certificate.VerifyHostname(host) != nil {
			foreign = append(foreign, host)
		}
	}
	if len(foreign) == 0 {
		return ""
	}
	names := slices.Clone(certificate.DNSNames)
	for _, ip := range certificate.IPAddresses {
		names = append(names, ip.String())
	}
	if len(names) == 0 {
		names = []string{"no host (it has no subjectAltName)"}
	}
	return "the certificate is for " + strings.Join(names, ", ") + " and not for " + strings.Join(foreign, ", ") +
		": clients that connect by that name refuse it"
}
