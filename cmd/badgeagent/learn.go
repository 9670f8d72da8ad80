package main

import (
	"badgerelay/auth/authmetadata"
	"context"
	"fmt"
	"net"
	"net/url"
	"strings"
)

// learn fetches a metadata document and reads what an agent has to know. ca is the
// file of the authorities that its server may have; empty: the machine's.
func (a *app) learn(ctx context.Context, address, ca string) (*authServer, error) {
	config, err := tlsConfig(ca)
	if err != nil {
		return nil, err
	}
	document, err := authmetadata.Fetch(ctx, httpClient(config), address)
	if err != nil {
		return nil, explainMetadata(err, address, ca)
	}
	return describe(document, address)
}

// describe picks the audience and the relays out of a document: the first
// audience of the form principal/authority@realm, and every endpoint that
// speaks gRPC.
func describe(m *authmetadata.Document, address string) (*authServer, error) {
	s := &authServer{MetadataURL: address, Realm: m.Realm, Issuer: m.Issuer, Principal: m.ServiceName}
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
