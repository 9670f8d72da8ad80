package auth

import (
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
	MaxMetadataSize = 256 << 10
	fetchTimeout    = 15 * time.Second
	maxRedirects    = 3
)

// ErrMetadata is wrapped by every error about a document's content.
var ErrMetadata = errors.New("auth metadata document not acceptable")

// Metadata is an auth metadata document, in the form of Exchange's own
// (Outlook add-ins guide, "Validate an Exchange identity token"; read 2026-11).
type Metadata struct {
	ID               string             `json:"id,omitempty"`
	Version          string             `json:"version"`
	Name             string             `json:"name"`
	Realm            string             `json:"realm"`
	ServiceName      string             `json:"serviceName"`
	Issuer           string             `json:"issuer"`
	AllowedAudiences []string           `json:"allowedAudiences"`
	Keys             []MetadataKey      `json:"keys"`
	Endpoints        []MetadataEndpoint `json:"endpoints"`
}

// MetadataKey is a published key.
type MetadataKey struct {
	Usage    string           `json:"usage"`
	KeyInfo  MetadataKeyInfo  `json:"keyinfo"`
	KeyValue MetadataKeyValue `json:"keyvalue"`
}

// MetadataKeyInfo names a key by its certificate's thumbprint.
type MetadataKeyInfo struct {
	X5T string `json:"x5t"`
}

// MetadataKeyValue is a certificate: DER in base64, standard alphabet.
type MetadataKeyValue struct {
	Type  string `json:"type"`
	Value string `json:"value"`
}

// MetadataEndpoint is a place that belongs to the service.
type MetadataEndpoint struct {
	Location string `json:"location"`
	Protocol string `json:"protocol"`
	Usage    string `json:"usage"`
}

// SigningKey returns the published form of a signing certificate.
func SigningKey(cert *x509.Certificate) MetadataKey {
	return MetadataKey{
		Usage:    "signing",
		KeyInfo:  MetadataKeyInfo{X5T: FormatX5T(X5T(cert))},
		KeyValue: MetadataKeyValue{Type: "x509Certificate", Value: base64.StdEncoding.EncodeToString(cert.Raw)},
	}
}

// Marshal encodes the document. Absent lists are empty ones.
func (m Metadata) Marshal() ([]byte, error) {
	if m.AllowedAudiences == nil {
		m.AllowedAudiences = []string{}
	}
	if m.Keys == nil {
		m.Keys = []MetadataKey{}
	}
	if m.Endpoints == nil {
		m.Endpoints = []MetadataEndpoint{}
	}
	return json.Marshal(m)
}

// SigningCertificates returns the certificates of the keys that sign tokens:
// usage "signing", type "x509Certificate", a key within the rules of
// ParseCertificate, and the x5t, where given, that of the certificate. Other
// keys are left out: one that we can't use must not hide one that we can.
func (m *Metadata) SigningCertificates() []*x509.Certificate {
	var certs []*x509.Certificate
	for _, key := range m.Keys {
		if key.Usage != "signing" || key.KeyValue.Type != "x509Certificate" {
			continue
		}
		der, err := base64.StdEncoding.Strict().DecodeString(key.KeyValue.Value)
		if err != nil {
			continue
		}
		cert, err := ParseCertificate(der)
		if err != nil || (key.KeyInfo.X5T != "" && !namesCertificate(key.KeyInfo.X5T, cert)) {
			continue
		}
		certs = append(certs, cert)
	}
	return certs
}

func namesCertificate(text string, cert *x509.Certificate) bool {
	var x5t [20]byte
	return decodeThumbprint(&jsonValue{kind: jsonString, text: text}, x5t[:]) && x5t == X5T(cert)
}

// ParseMetadata reads a document strictly: one JSON object of at most
// MaxMetadataSize bytes, four levels and 64 members or items each, no name
// twice, known members of the right type. Unknown members are ignored. Errors
// wrap ErrMetadata.
func ParseMetadata(data []byte) (*Metadata, error) {
	if len(data) > MaxMetadataSize {
		return nil, fmt.Errorf("%w: larger than %d bytes", ErrMetadata, MaxMetadataSize)
	}
	v, err := parseJSONObject(data)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMetadata, err)
	}
	r := metadataReader{}
	m := &Metadata{
		ID: r.text(v, "id"), Version: r.text(v, "version"), Name: r.text(v, "name"), Realm: r.text(v, "realm"),
		ServiceName: r.text(v, "serviceName"), Issuer: r.text(v, "issuer"),
	}
	for _, item := range r.list(v, "allowedAudiences", jsonString) {
		m.AllowedAudiences = append(m.AllowedAudiences, item.text)
	}
	for _, item := range r.list(v, "keys", jsonObject) {
		info, value := r.object(&item, "keyinfo"), r.object(&item, "keyvalue")
		m.Keys = append(m.Keys, MetadataKey{
			Usage:    r.text(&item, "usage"),
			KeyInfo:  MetadataKeyInfo{X5T: r.text(info, "x5t")},
			KeyValue: MetadataKeyValue{Type: r.text(value, "type"), Value: r.text(value, "value")},
		})
	}
	for _, item := range r.list(v, "endpoints", jsonObject) {
		m.Endpoints = append(m.Endpoints, MetadataEndpoint{
			Location: r.text(&item, "location"), Protocol: r.text(&item, "protocol"), Usage: r.text(&item, "usage"),
		})
	}
	if r.wrong != "" {
		return nil, fmt.Errorf("%w: member %s has the wrong type", ErrMetadata, r.wrong)
	}
	return m, nil
}

// metadataReader takes typed members and remembers the first that has another
// type. Absent and null members are empty.
type metadataReader struct{ wrong string }

func (r *metadataReader) get(v *jsonValue, name string, kind jsonKind) *jsonValue {
	member, ok := v.member(name)
	if !ok || member.kind == jsonNull {
		return &jsonValue{}
	}
	if member.kind != kind && r.wrong == "" {
		r.wrong = name
	}
	return member
}

func (r *metadataReader) text(v *jsonValue, name string) string {
	return r.get(v, name, jsonString).text
}

func (r *metadataReader) object(v *jsonValue, name string) *jsonValue {
	return r.get(v, name, jsonObject)
}

func (r *metadataReader) list(v *jsonValue, name string, kind jsonKind) []jsonValue {
	items := r.get(v, name, jsonArray).items
	for i := range items {
		if items[i].kind != kind && r.wrong == "" {
			r.wrong = name
		}
	}
	return items
}

// MetadataStatusError is a server's answer with another status than 200. It wraps
// ErrMetadata.
type MetadataStatusError struct{ StatusCode int }

// Error says which status.
func (e *MetadataStatusError) Error() string {
	return fmt.Sprintf("%v: the server answered %d", ErrMetadata, e.StatusCode)
}

// Unwrap returns ErrMetadata.
func (e *MetadataStatusError) Unwrap() error { return ErrMetadata }

// FetchMetadata gets the document at address, which must be https, within 15
// seconds. TLS is verified as client does; redirects stay on https and are
// few. A nil client is http.DefaultClient. Errors about the content wrap
// ErrMetadata.
func FetchMetadata(ctx context.Context, client *http.Client, address string) (*Metadata, error) {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("%w: %q is not an https URL", ErrMetadata, address)
	}
	if client == nil {
		client = http.DefaultClient
	}
	strict := *client
	strict.CheckRedirect = func(next *http.Request, via []*http.Request) error {
		if next.URL.Scheme != "https" || len(via) > maxRedirects {
			return fmt.Errorf("%w: redirected too often or away from https", ErrMetadata)
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
		return nil, &MetadataStatusError{response.StatusCode}
	}
	data, err := io.ReadAll(io.LimitReader(response.Body, MaxMetadataSize+1))
	if err != nil {
		return nil, fmt.Errorf("fetch auth metadata: %w", err)
	}
	return ParseMetadata(data)
}
