package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
)

// maxDocument bounds a metadata document; real ones have a few KiB.
const maxDocument = 1 << 20

// document is what is read of an auth metadata document (s2s tokens, form of
// Exchange's /autodiscover/metadata/json/1).
type document struct {
	Realm            string   `json:"realm"`
	ServiceName      string   `json:"serviceName"`
	Issuer           string   `json:"issuer"`
	AllowedAudiences []string `json:"allowedAudiences"`
	Endpoints        []struct {
		Location string `json:"location"`
		Protocol string `json:"protocol"`
	} `json:"endpoints"`
}

// learn fetches a metadata document and reads what an agent has to know.
func (a *app) learn(ctx context.Context, address string, config *tls.Config) (*authServer, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	response, err := httpClient(config).Do(request)
	if err != nil {
		return nil, fmt.Errorf("fetch metadata: %w", err)
	}
	defer func() { _ = response.Body.Close() }() // it was only read
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("fetch metadata: %s answered %s", address, response.Status)
	}
	var d document
	if err := json.NewDecoder(io.LimitReader(response.Body, maxDocument)).Decode(&d); err != nil {
		return nil, fmt.Errorf("read metadata: %w", err)
	}
	return d.authServer(address)
}

func (d *document) authServer(address string) (*authServer, error) {
	s := &authServer{MetadataURL: address, Realm: d.Realm, Issuer: d.Issuer, Principal: d.ServiceName}
	for _, audience := range d.AllowedAudiences {
		principal, rest, ok := strings.Cut(audience, "/")
		authority, _, _ := strings.Cut(rest, "@")
		if ok && strings.EqualFold(principal, d.ServiceName) {
			s.Audience, s.Authority = audience, authority
			break
		}
	}
	if s.Audience == "" {
		return nil, fmt.Errorf("metadata of %s names no audience principal/authority@realm", address)
	}
	for _, e := range d.Endpoints {
		if u, err := url.Parse(e.Location); err == nil && strings.EqualFold(e.Protocol, "grpc") && u.Host != "" {
			port := u.Port()
			if port == "" {
				port = "443"
			}
			s.Relays = append(s.Relays, u.Hostname()+":"+port)
		}
	}
	return s, nil
}
