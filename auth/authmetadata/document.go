// Package authmetadata reads and serves auth metadata documents, the JSON in
// which a service publishes its signing keys and its audience, as Exchange does.
// [NewHandler] serves the relay's, from which agents learn its audience; a
// [Follower] picks up the keys that organizations publish in theirs.
package authmetadata

import (
	"badgerelay/auth/certs"
	"badgerelay/auth/internal/strict"
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"
)

// Limits of an auth metadata document. Ours: Exchange's own has a few KiB.
const (
	MaxSize      = 256 << 10
	fetchTimeout = 15 * time.Second
	maxRedirects = 3
)

// ErrDocument is wrapped by every error about a document's content.
var ErrDocument = errors.New("auth metadata document not acceptable")

// Document is an auth metadata document, in the form of Exchange's own
// (Outlook add-ins guide, "Validate an Exchange identity token"; read 2026-11).
type Document struct {
	ID               string     `json:"id,omitempty"`
	Version          string     `json:"version"`
	Name             string     `json:"name"`
	Realm            string     `json:"realm"`
	ServiceName      string     `json:"serviceName"`
	Issuer           string     `json:"issuer"`
	AllowedAudiences []string   `json:"allowedAudiences"`
	Keys             []Key      `json:"keys"`
	Endpoints        []Endpoint `json:"endpoints"`
}

// Key is a published key.
type Key struct {
	Usage    string   `json:"usage"`
	KeyInfo  KeyInfo  `json:"keyinfo"`
	KeyValue KeyValue `json:"keyvalue"`
}

// KeyInfo names a key by its certificate's thumbprint.
type KeyInfo struct {
	X5T string `json:"x5t"`
}

// KeyValue is a certificate: DER in base64, standard alphabet.
type KeyValue struct {
	Type  string `json:"type"`
	Value string `json:"value"`
}

// Endpoint is a place that belongs to the service.
type Endpoint struct {
	Location string `json:"location"`
	Protocol string `json:"protocol"`
	Usage    string `json:"usage"`
}

// SigningKey returns the published form of a signing certificate.
func SigningKey(cert *x509.Certificate) Key {
	return Key{
		Usage:    "signing",
		KeyInfo:  KeyInfo{X5T: certs.FormatX5T(certs.X5T(cert))},
		KeyValue: KeyValue{Type: "x509Certificate", Value: base64.StdEncoding.EncodeToString(cert.Raw)},
	}
}

// Marshal encodes the document. Absent lists are empty ones.
func (m Document) Marshal() ([]byte, error) {
	if m.AllowedAudiences == nil {
		m.AllowedAudiences = []string{}
	}
	if m.Keys == nil {
		m.Keys = []Key{}
	}
	if m.Endpoints == nil {
		m.Endpoints = []Endpoint{}
	}
	return json.Marshal(m)
}

// SigningCertificates returns the certificates of the keys that sign tokens:
// usage "signing", type "x509Certificate", a key within the rules of
// certs.Parse, and the x5t, where given, that of the certificate. Other
// keys are left out: one that we can't use must not hide one that we can.
func (m *Document) SigningCertificates() []*x509.Certificate {
	var signing []*x509.Certificate
	for _, key := range m.Keys {
		if key.Usage != "signing" || key.KeyValue.Type != "x509Certificate" {
			continue
		}
		der, err := base64.StdEncoding.Strict().DecodeString(key.KeyValue.Value)
		if err != nil {
			continue
		}
		cert, err := certs.Parse(der)
		if err != nil || (key.KeyInfo.X5T != "" && !namesCertificate(key.KeyInfo.X5T, cert)) {
			continue
		}
		signing = append(signing, cert)
	}
	return signing
}

func namesCertificate(text string, cert *x509.Certificate) bool {
	var x5t [20]byte
	return certs.DecodeThumbprint(text, x5t[:]) && x5t == certs.X5T(cert)
}

// Parse reads a document strictly: one JSON object of at most
// MaxSize bytes, four levels and 64 members or items each, no name
// twice, known members of the right type. Unknown members are ignored. Errors
// wrap ErrDocument.
func Parse(data []byte) (*Document, error) {
	if len(data) > MaxSize {
		return nil, fmt.Errorf("%w: larger than %d bytes", ErrDocument, MaxSize)
	}
	v, err := strict.ParseObject(data)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDocument, err)
	}
	r := memberReader{}
	m := &Document{
		ID: r.text(v, "id"), Version: r.text(v, "version"), Name: r.text(v, "name"), Realm: r.text(v, "realm"),
		ServiceName: r.text(v, "serviceName"), Issuer: r.text(v, "issuer"),
	}
	for _, item := range r.list(v, "allowedAudiences", strict.String) {
		m.AllowedAudiences = append(m.AllowedAudiences, item.Text)
	}
	for _, item := range r.list(v, "keys", strict.Object) {
		info, value := r.object(&item, "keyinfo"), r.object(&item, "keyvalue")
		m.Keys = append(m.Keys, Key{
			Usage:    r.text(&item, "usage"),
			KeyInfo:  KeyInfo{X5T: r.text(info, "x5t")},
			KeyValue: KeyValue{Type: r.text(value, "type"), Value: r.text(value, "value")},
		})
	}
	for _, item := range r.list(v, "endpoints", strict.Object) {
		m.Endpoints = append(m.Endpoints, Endpoint{
			Location: r.text(&item, "location"), Protocol: r.text(&item, "protocol"), Usage: r.text(&item, "usage"),
		})
	}
	if r.wrong != "" {
		return nil, fmt.Errorf("%w: member %s has the wrong type", ErrDocument, r.wrong)
	}
	return m, nil
}

// memberReader takes typed members and remembers the first that has another
// type. Absent and null members are empty.
type memberReader struct{ wrong string }

func (r *memberReader) get(v *strict.Value, name string, kind strict.Kind) *strict.Value {
	member, ok := v.Member(name)
	if !ok || member.Kind == strict.Null {
		return &strict.Value{}
	}
	if member.Kind != kind && r.wrong == "" {
		r.wrong = name
	}
	return member
}

func (r *memberReader) text(v *strict.Value, name string) string {
	return r.get(v, name, strict.String).Text
}

func (r *memberReader) object(v *strict.Value, name string) *strict.Value {
	return r.get(v, name, strict.Object)
}

func (r *memberReader) list(v *strict.Value, name string, kind strict.Kind) []strict.Value {
	items := r.get(v, name, strict.Array).Items
	for i := range items {
		if items[i].Kind != kind && r.wrong == "" {
			r.wrong = name
		}
	}
	return items
}

// StatusError is a server's answer with another status than 200. It wraps
// ErrDocument.
type StatusError struct{ StatusCode int }

// Error says which status.
func (e *StatusError) Error() string {
	return fmt.Sprintf("%v: the server answered %d", ErrDocument, e.StatusCode)
}

// Unwrap returns ErrDocument.
func (e *StatusError) Unwrap() error { return ErrDocument }

// Fetch gets the document at address, which must be https, within 15
// seconds. TLS is verified as client does; redirects stay on https and are
// few. A nil client is http.DefaultClient. Errors about the content wrap
// ErrDocument.
func Fetch(ctx context.Context, client *http.Client, address string) (*Document, error) {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("%w: %q is not an https URL", ErrDocument, address)
	}
	if client == nil {
		client = http.DefaultClient
	}
	strict := *client
	strict.CheckRedirect = func(next *http.Request, via []*http.Request) error {
		if next.URL.Scheme != "https" || len(via) > maxRedirects {
			return fmt.Errorf("%w: redirected too often or away from https", ErrDocument)
		}
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, fmt.Errorf("fetch auth metadata: %w", err)
	}
	request.Header.Set("Accept", "application/json")
	response, err := strict.Do(request)
	if err != nil {
		return nil, fmt.Errorf("fetch auth metadata: %w", err)
	}
	defer response.Body.Close() // read to its end or given up
	if response.StatusCode != http.StatusOK {
		return nil, &StatusError{response.StatusCode}
	}
	data, err := io.ReadAll(io.LimitReader(response.Body, MaxSize+1))
	if err != nil {
		return nil, fmt.Errorf("fetch auth metadata: %w", err)
	}
	return Parse(data)
}
