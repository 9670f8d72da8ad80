package authmetadata

import (
	"badgerelay/auth/audience"
	"crypto/x509"
	"errors"
	"net/http"
	"strconv"
)

// Path is where a service publishes its document, with or without a
// slash at the end.
const Path = "/metadata/json/1"

// HandlerConfig of a NewHandler.
type HandlerConfig struct {
	// Name of the service in the document. Empty is "badgerelay".
	Name string
	// Principal is the relay's GUID. Required.
	Principal string
	// Authorities are the host[:port] of the relay, as in Config. Required.
	Authorities []string
	// Location is the document's own URL. Empty leaves it out.
	Location string
	// Relay is the URL at which agents reach the relay, published as an
	// endpoint of usage "relay". Empty leaves it out.
	Relay string
	// Certificates are published as signing keys; a relay signs nothing and
	// has none.
	Certificates []*x509.Certificate
}

// AnyRealm is the realm of the document that is asked for without one: no
// organization's.
const AnyRealm = "*"

// NewHandler returns the handler of GET /metadata/json/1?realm=, from
// which an agent learns audience and endpoint. It answers for every well-formed
// realm alike, so that it does not tell which organizations exist; without a
// realm it answers for `*`.
func NewHandler(config HandlerConfig) (http.Handler, error) {
	if !audience.IsGUID(config.Principal) || len(config.Authorities) == 0 {
		return nil, errors.New("auth metadata needs a principal GUID and an authority")
	}
	if config.Name == "" {
		config.Name = "badgerelay"
	}
	h := &metadataHandler{config: config}
	mux := http.NewServeMux()
	mux.Handle("GET "+Path, h)
	mux.Handle("GET "+Path+"/{$}", h)
	return mux, nil
}

type metadataHandler struct{ config HandlerConfig }

func (h *metadataHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	realm := r.URL.Query().Get("realm")
	if realm == "" {
		realm = AnyRealm
	} else if !audience.IsRealm(realm) {
		http.Error(w, "realm is not a domain", http.StatusBadRequest)
		return
	}
	document := h.document(realm)
	data, err := document.Marshal()
	if err != nil {
		http.Error(w, "internal error", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("Content-Length", strconv.Itoa(len(data)))
	w.Header().Set("Cache-Control", "public, max-age=3600")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	_, _ = w.Write(data) // the client has gone; there is nobody to tell
}

func (h *metadataHandler) document(realm string) Document {
	c := &h.config
	m := Document{
		ID: "_" + c.Principal, Version: "1.0", Name: c.Name, Realm: realm, ServiceName: c.Principal,
		Issuer: c.Principal + "@" + realm,
	}
	for _, a := range c.Authorities {
		m.AllowedAudiences = append(m.AllowedAudiences, audience.Audience{Principal: c.Principal, Authority: a, Realm: realm}.String())
	}
	for _, cert := range c.Certificates {
		m.Keys = append(m.Keys, SigningKey(cert))
	}
	if c.Location != "" {
		m.Endpoints = append(m.Endpoints, Endpoint{Location: c.Location, Protocol: "OAuth2", Usage: "metadata"})
	}
	if c.Relay != "" {
		m.Endpoints = append(m.Endpoints, Endpoint{Location: c.Relay, Protocol: "gRPC", Usage: "relay"})
	}
	return m
}
