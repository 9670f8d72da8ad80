package keyring

import (
	"crypto/x509"
	"net/http"
	"strconv"
	"strings"

	"badgerelay/auth"
	"badgerelay/auth/authmetadata"
	"badgerelay/auth/certs"
)

// Certificate returns the one whose key signs.
func (k *Keyring) Certificate() *x509.Certificate {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.pair.Certificate
}

// Document returns the metadata document of an organization: every
// certificate whose key signs, will sign, or has signed tokens that may
// still be in use.
//
// Source of the form: Outlook add-ins guide, "Validate an Exchange identity
// token" (read 2026-11).
func Document(store *certs.Store, organization string) (*authmetadata.Document, error) {
	state, err := store.State()
	if err != nil {
		return nil, err
	}
	self := auth.PrincipalExchange + "@" + organization
	m := &authmetadata.Document{
		ID: "_" + auth.PrincipalExchange, Version: "1.0", Name: "badgeagent", Realm: organization,
		ServiceName: auth.PrincipalExchange, Issuer: self, AllowedAudiences: []string{self},
	}
	for _, slot := range []*certs.Slot{state.Current, state.Next, state.Previous} {
		if slot == nil {
			continue
		}
		pair, err := store.Load(slot)
		if err != nil {
			return nil, err
		}
		m.Keys = append(m.Keys, authmetadata.SigningKey(pair.Certificate))
	}
	return m, nil
}

// Handler serves the document at authmetadata.Path, for the organization's
// realm or for none.
func (k *Keyring) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+authmetadata.Path, k.serveDocument)
	mux.HandleFunc("GET "+authmetadata.Path+"/{$}", k.serveDocument)
	return mux
}

func (k *Keyring) serveDocument(w http.ResponseWriter, r *http.Request) {
	if realm := r.URL.Query().Get("realm"); realm != "" && !strings.EqualFold(realm, k.config.Organization) {
		http.Error(w, "another organization's realm", http.StatusNotFound)
		return
	}
	var data []byte
	document, err := Document(k.config.Store, k.config.Organization)
	if err == nil {
		data, err = document.Marshal()
	}
	if err != nil {
		k.config.Logger.Error("metadata document not made", "error", err)
		http.Error(w, "internal error", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("Content-Length", strconv.Itoa(len(data)))
	w.Header().Set("X-Content-Type-Options", "nosniff")
	_, _ = w.Write(data) // the client has gone; there is nobody to tell
}
