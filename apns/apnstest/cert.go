package apnstest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"math/big"
	"net"
	"time"
)

// Extensions and attributes of Apple's push certificates: node-apn, oids.js,
// and pushy, apns-extensions.cnf (read 2026-11).
var (
	oidUserID      = asn1.ObjectIdentifier{0, 9, 2342, 19200300, 100, 1, 1}
	oidDevelopment = asn1.ObjectIdentifier{1, 2, 840, 113635, 100, 6, 3, 1}
	oidProduction  = asn1.ObjectIdentifier{1, 2, 840, 113635, 100, 6, 3, 2}
	oidTopics      = asn1.ObjectIdentifier{1, 2, 840, 113635, 100, 6, 3, 6}
)

// Authority signs certificates for tests: the server's, and those of clients.
// Safe for concurrent use.
type Authority struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

// NewAuthority makes a certificate authority with a fresh key. Certificates
// are valid from a day before now until ten years after, or, inside a
// testing/synctest bubble, around the bubble's time.
func NewAuthority() (*Authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make authority key: %w", err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "apnstest authority"},
		NotBefore: earliest(), NotAfter: time.Now().AddDate(50, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	cert, err := issue(tmpl, tmpl, key.Public(), key)
	return &Authority{key, cert}, err
}

// issue makes a certificate for a public key, signed with parent's key.
func issue(tmpl, parent *x509.Certificate, public crypto.PublicKey, key *ecdsa.PrivateKey) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, public, key)
	if err != nil {
		return nil, fmt.Errorf("sign certificate: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("read certificate: %w", err)
	}
	return cert, nil
}

// earliest is before any time a synctest bubble starts at (2000-01-01), so
// that an Authority made outside a bubble serves inside.
func earliest() time.Time { return time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC) }

// Pool returns a pool with the authority alone, for clients' RootCAs and for
// Config.ClientCAs.
func (a *Authority) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

// ServerCertificate makes a certificate for the names and addresses, with a
// fresh key, valid until notAfter.
func (a *Authority) ServerCertificate(notAfter time.Time, hosts ...string) (tls.Certificate, error) {
	tmpl := &x509.Certificate{
		Subject: pkix.Name{CommonName: "apnstest"}, NotAfter: notAfter,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			tmpl.IPAddresses = append(tmpl.IPAddresses, ip)
		} else {
			tmpl.DNSNames = append(tmpl.DNSNames, h)
		}
	}
	return a.sign(tmpl)
}

// ClientCertificate makes a push certificate such as Apple issues: for the
// first topic and those beside it, of one environment or, with several given,
// of each. No topics: one without any, which the simulator refuses.
func (a *Authority) ClientCertificate(topics []string, environments ...Environment) (tls.Certificate, error) {
	tmpl := &x509.Certificate{
		Subject: pkix.Name{CommonName: "Apple Push Services"}, NotAfter: time.Now().AddDate(20, 0, 0),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	null := []byte{asn1.TagNull, 0}
	for _, e := range environments {
		oid := oidProduction
		if e == Sandbox {
			oid = oidDevelopment
		}
		tmpl.ExtraExtensions = append(tmpl.ExtraExtensions, pkix.Extension{Id: oid, Value: null})
	}
	if len(topics) > 0 {
		tmpl.Subject.ExtraNames = []pkix.AttributeTypeAndValue{{Type: oidUserID, Value: topics[0]}}
		value, err := marshalTopics(topics)
		if err != nil {
			return tls.Certificate{}, err
		}
		tmpl.ExtraExtensions = append(tmpl.ExtraExtensions, pkix.Extension{Id: oidTopics, Value: value})
	}
	return a.sign(tmpl)
}

func (a *Authority) sign(tmpl *x509.Certificate) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("make certificate key: %w", err)
	}
	if tmpl.SerialNumber, err = rand.Int(rand.Reader, big.NewInt(1<<62)); err != nil {
		return tls.Certificate{}, fmt.Errorf("draw serial number: %w", err)
	}
	tmpl.NotBefore = earliest()
	tmpl.KeyUsage = x509.KeyUsageDigitalSignature
	leaf, err := issue(tmpl, a.cert, key.Public(), a.key)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.Certificate{Certificate: [][]byte{leaf.Raw, a.cert.Raw}, PrivateKey: key, Leaf: leaf}, nil
}

// marshalTopics writes the extension: a sequence of a topic and the sequence
// of its kinds, repeated.
func marshalTopics(topics []string) ([]byte, error) {
	var seq []asn1.RawValue
	for i, t := range topics {
		name, err := asn1.MarshalWithParams(t, "utf8")
		if err != nil {
			return nil, fmt.Errorf("write topic: %w", err)
		}
		kind := "app"
		if i > 0 {
			kind = "topic"
		}
		kinds, err := asn1.Marshal([]asn1.RawValue{{Tag: asn1.TagUTF8String, Bytes: []byte(kind)}})
		if err != nil {
			return nil, fmt.Errorf("write kind of topic: %w", err)
		}
		seq = append(seq, asn1.RawValue{FullBytes: name}, asn1.RawValue{FullBytes: kinds})
	}
	return asn1.Marshal(seq)
}

// pushCertificate is what a client certificate allows.
type pushCertificate struct {
	base         string // the topic of the UID; empty: not a push certificate
	topics       []string
	environments [2]bool
}

// readPushCertificate reads what cert allows. What can't be read allows nothing.
func readPushCertificate(cert *x509.Certificate) *pushCertificate {
	p := &pushCertificate{}
	for _, n := range cert.Subject.Names {
		if s, ok := n.Value.(string); ok && n.Type.Equal(oidUserID) {
			p.base = s
		}
	}
	for _, e := range cert.Extensions {
		switch {
		case e.Id.Equal(oidDevelopment):
			p.environments[Sandbox] = true
		case e.Id.Equal(oidProduction):
			p.environments[Production] = true
		case e.Id.Equal(oidTopics):
			p.topics = readTopics(e.Value)
		}
	}
	if p.base != "" && len(p.topics) == 0 {
		p.topics = []string{p.base}
	}
	return p
}

func readTopics(der []byte) []string {
	var seq []asn1.RawValue
	if rest, err := asn1.Unmarshal(der, &seq); err != nil || len(rest) > 0 {
		return nil
	}
	var topics []string
	for _, v := range seq {
		if v.Class == asn1.ClassUniversal && v.Tag == asn1.TagUTF8String {
			topics = append(topics, string(v.Bytes))
		}
	}
	return topics
}
