package enrolment

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"badgerelay/auth"
	"badgerelay/auth/authmetadata"
	"badgerelay/auth/certs"
)

// AuthServer is the relay as its metadata document describes it.
type AuthServer struct {
	MetadataURL string    `json:"metadataUrl"`
	CAFile      string    `json:"caFile,omitempty"` // absolute; empty: the system's roots
	Realm       string    `json:"realm"`
	Principal   string    `json:"principal"` // the relay's: tokens are meant for it
	Authority   string    `json:"authority"` // host[:port] in the tokens' audience
	Audience    string    `json:"audience"`  // principal/authority@realm
	Issuer      string    `json:"issuer"`
	Relays      []string  `json:"relays"` // host:port
	ChangedAt   time.Time `json:"changedAt"`
	CreatedAt   time.Time `json:"createdAt"`
}

// AuthServer reads what is kept of the relay. Nothing is ErrNoAuthServer.
func (d Directory) AuthServer() (*AuthServer, error) {
	s := &AuthServer{}
	there, err := d.load(authServerFile, s)
	if err == nil && !there {
		err = ErrNoAuthServer
	}
	if err != nil {
		return nil, err
	}
	return s, nil
}

// KeepAuthServer replaces what is kept of the relay.
func (d Directory) KeepAuthServer(s *AuthServer) error { return d.keep(authServerFile, s) }

// Same reports whether two are the same relay, reached and trusted in the same way.
func (s *AuthServer) Same(o *AuthServer) bool {
	return s.MetadataURL == o.MetadataURL && s.CAFile == o.CAFile && s.Realm == o.Realm && s.Audience == o.Audience &&
		s.Issuer == o.Issuer && slices.Equal(s.Relays, o.Relays)
}

// NewIssuer returns what signs an organization's tokens for the relay. A lifetime of 0
// is auth's.
func (s *AuthServer) NewIssuer(pair *certs.Pair, organization string, lifetime time.Duration) (*auth.Issuer, error) {
	return auth.NewIssuer(auth.IssuerConfig{
		Key: pair.Key, Certificate: pair.Certificate, Realm: organization,
		TargetPrincipal: s.Principal, Authority: s.Authority, Lifetime: lifetime,
	})
}

// Learn fetches a metadata document and reads what an agent has to know. Where it can't
// be fetched the error is authmetadata.Fetch's.
func Learn(ctx context.Context, client *http.Client, address string) (*AuthServer, error) {
	document, err := authmetadata.Fetch(ctx, client, address)
	if err != nil {
		return nil, err
	}
	return describe(document, address)
}

// describe picks the audience and the relays out of a document: the first
// audience of the form principal/authority@realm, and every endpoint that
// speaks gRPC.
func describe(m *authmetadata.Document, address string) (*AuthServer, error) {
	s := &AuthServer{MetadataURL: address, Realm: m.Realm, Issuer: m.Issuer, Principal: m.ServiceName}
	for _, audience := range m.AllowedAudiences {
		principal, rest, ok := strings.Cut(audience, "/")
		authority, _, _ := strings.Cut(rest, "@")
		if ok && authority != "" && strings.EqualFold(principal, m.ServiceName) {
			s.Audience, s.Authority = audience, authority
			break
		}
	}
	if s.Audience == "" {
		return nil, fmt.Errorf("metadata of %s names no audience of the form principal/authority@realm", address)
	}
	for _, e := range m.Endpoints {
		u, err := url.Parse(e.Location)
		if err != nil || u.Hostname() == "" || !strings.EqualFold(e.Protocol, "gRPC") {
			continue
		}
		port := u.Port()
		if port == "" {
			port = "443"
		}
		s.Relays = append(s.Relays, net.JoinHostPort(u.Hostname(), port))
	}
	return s, nil
}
