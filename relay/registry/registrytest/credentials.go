package registrytest

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"strings"
	"time"

	"badgerelay/auth/authtest"
	"badgerelay/relay/registry"
)

const year = 365 * 24 * time.Hour

// testKey is an RSA key that signs its own certificates.
type testKey struct{ *rsa.PrivateKey }

func newKey(h *harness) testKey {
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	h.ok(err)
	return testKey{k}
}

// certificate is valid for so long, from a minute ago. Two of one key differ.
func (k testKey) certificate(valid time.Duration) registry.NewCredential {
	return registry.NewCredential{Certificate: selfSigned(k, valid)}
}

func selfSigned(key crypto.Signer, valid time.Duration) []byte {
	start := time.Now().Add(-time.Minute)
	template := &x509.Certificate{Subject: pkix.Name{CommonName: "test"}, NotBefore: start, NotAfter: start.Add(valid)}
	return authtest.Issue(template, template, key.Public(), key).Raw
}

func testCredentialLife(h *harness) {
	ctx, org, k := h.Context(), h.org("fabrikam.com"), newKey(h)
	first, err := h.AddCredential(ctx, org, k.certificate(year))
	h.ok(err)
	h.told("credential_added fabrikam.com")
	cert := first.Certificate
	spki, err := x509.MarshalPKIXPublicKey(&k.PublicKey)
	h.ok(err)
	if first.X5T != sha1.Sum(cert.Raw) || first.KeySHA256 != sha256.Sum256(spki) || !first.StartAt.Equal(cert.NotBefore) ||
		!first.EndAt.Equal(cert.NotAfter) || first.OrganizationID != int64(org) || first.Organization != "fabrikam.com" ||
		!first.Enabled || !first.LastUsedAt.IsZero() || first.ID == "" {
		h.Errorf("credential was kept as %+v", first)
	}
	second := newKey(h).certificate(year)
	second.StartAt, second.EndAt = time.Now().Add(time.Hour), time.Now().Add(2*time.Hour)
	second.Certificate = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: second.Certificate})
	next, err := h.AddCredential(ctx, org, second)
	h.ok(err)
	if !next.StartAt.Equal(second.StartAt.Truncate(time.Millisecond)) || !next.EndAt.Equal(second.EndAt.Truncate(time.Millisecond)) {
		h.Errorf("window was kept as %v to %v", next.StartAt, next.EndAt)
	}
	list, err := h.ListCredentials(ctx, org)
	h.ok(err)
	if len(list) != 2 || list[0].ID != next.ID || !list[1].Certificate.Equal(first.Certificate) || list[1].CreatedAt != first.CreatedAt {
		h.Errorf("got %d credentials, want the one that starts last first: %+v", len(list), list)
	}
	for range 10 { // answers take the place of those before them, in a connection's buffer
		_, err := h.CredentialsByX5T(ctx, first.X5T)
		h.ok(err)
	}
	for _, c := range list {
		if sha1.Sum(c.Certificate.Raw) != c.X5T || sha256.Sum256(c.Certificate.RawSubjectPublicKeyInfo) != c.KeySHA256 {
			h.Errorf("a credential that was read has changed with what was read later")
		}
	}
	h.forget()
	h.want(h.RemoveCredential(ctx, h.org("other.com"), next.ID), registry.ErrCredentialNotFound)
	h.want(h.RemoveCredential(ctx, org, ""), registry.ErrCredentialNotFound)
	h.want(h.RemoveCredential(ctx, org, strings.Repeat("0", 40)), registry.ErrCredentialNotFound)
	h.ok(h.RemoveCredential(ctx, org, next.ID))
	h.ok(h.RemoveCredential(ctx, org, strings.ToUpper(hex.EncodeToString(first.X5T[:]))))
	h.told("credential_removed fabrikam.com", "credential_removed fabrikam.com")
	if list, err := h.ListCredentials(ctx, org); err != nil || len(list) != 0 {
		h.Errorf("got %d credentials, %v; want none", len(list), err)
	}
}

func testCredentialRules(h *harness) {
	ctx, org, k := h.Context(), h.org("fabrikam.com"), newKey(h)
	good := k.certificate(year)
	cert, err := x509.ParseCertificate(good.Certificate)
	h.ok(err)
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	h.ok(err)
	curve, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	h.ok(err)
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: good.Certificate})
	private := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: good.Certificate})
	for name, c := range map[string]struct {
		field string
		n     registry.NewCredential
	}{
		"empty":            {"certificate", registry.NewCredential{}},
		"garbage":          {"certificate", registry.NewCredential{Certificate: []byte("garbage")}},
		"trailing":         {"certificate", registry.NewCredential{Certificate: append(bytes.Clone(good.Certificate), 0)}},
		"two in PEM":       {"certificate", registry.NewCredential{Certificate: append(bytes.Clone(block), block...)}},
		"private in PEM":   {"certificate", registry.NewCredential{Certificate: private}},
		"too large":        {"certificate", registry.NewCredential{Certificate: make([]byte, registry.MaxCertificateSize+1)}},
		"1024 bits":        {"certificate", registry.NewCredential{Certificate: selfSigned(small, year)}},
		"curve":            {"certificate", registry.NewCredential{Certificate: selfSigned(curve, year)}},
		"starts before":    {"start_at", registry.NewCredential{Certificate: good.Certificate, StartAt: cert.NotBefore.Add(-time.Millisecond)}},
		"ends after":       {"end_at", registry.NewCredential{Certificate: good.Certificate, EndAt: cert.NotAfter.Add(time.Millisecond)}},
		"ends at start":    {"end_at", registry.NewCredential{Certificate: good.Certificate, EndAt: cert.NotBefore}},
		"starts after end": {"end_at", registry.NewCredential{Certificate: good.Certificate, StartAt: cert.NotAfter.Add(time.Hour)}},
	} {
		_, err := h.AddCredential(ctx, org, c.n)
		if e, ok := errors.AsType[*registry.InvalidError](err); !ok || e.Field != c.field {
			h.Errorf("%s: got %v, want an InvalidError of %s", name, err, c.field)
		}
	}
	h.told()
}

func testCredentialOwner(h *harness) {
	ctx, mine, theirs, k := h.Context(), h.org("mine.com"), h.org("theirs.com"), newKey(h)
	first := k.certificate(year)
	added, err := h.AddCredential(ctx, mine, first)
	h.ok(err)
	h.forget()
	_, err = h.AddCredential(ctx, mine, first)
	h.want(err, registry.ErrCredentialExists) // the same certificate
	_, err = h.AddCredential(ctx, theirs, first)
	h.want(err, registry.ErrCredentialExists) // a stolen certificate
	if exists, ok := errors.AsType[*registry.CredentialExistsError](err); !ok || exists.Organization != "mine.com" {
		h.Errorf("got %v, want it to say where", err)
	}
	_, err = h.AddCredential(ctx, theirs, k.certificate(year))
	h.want(err, registry.ErrCredentialExists) // another certificate of the same key
	h.told()
	renewed, err := h.AddCredential(ctx, mine, k.certificate(2*year))
	h.ok(err)
	if renewed.KeySHA256 != added.KeySHA256 || renewed.X5T == added.X5T {
		h.Error("a renewed certificate is not a second credential of the same key")
	}
	h.ok(h.RemoveCredential(ctx, mine, added.ID))
	h.ok(h.RemoveCredential(ctx, mine, renewed.ID))
	_, err = h.AddCredential(ctx, theirs, first)
	h.ok(err) // free again
}

func testCredentialUse(h *harness) {
	ctx, org := h.Context(), h.org("fabrikam.com")
	c, err := h.AddCredential(ctx, org, newKey(h).certificate(year))
	h.ok(err)
	off := false
	_, err = h.UpdateOrganization(ctx, "fabrikam.com", registry.OrganizationUpdate{Enabled: &off})
	h.ok(err)
	h.forget()
	at := time.Now().UTC().Truncate(time.Millisecond)
	for _, used := range []time.Time{at, at.Add(-time.Hour)} {
		h.ok(h.TouchCredentials(ctx, map[string]time.Time{c.ID: used, "unknown": used}))
	}
	h.ok(h.TouchCredentials(ctx, nil))
	got, err := h.CredentialsByX5T(ctx, c.X5T)
	h.ok(err)
	if len(got) != 1 || got[0].ID != c.ID || got[0].Enabled || got[0].OrganizationID != int64(org) || !got[0].Certificate.Equal(c.Certificate) {
		h.Errorf("got %+v, want the credential of a disabled organization", got)
	}
	if all, err := h.ListCredentials(ctx, org); err != nil || len(all) != 1 || !all[0].LastUsedAt.Equal(at) || all[0].KeySHA256 != c.KeySHA256 {
		h.Errorf("got %+v, %v; want it used at %v", all, err, at)
	}
	if got, err := h.CredentialsByX5T(ctx, [20]byte{1}); err != nil || len(got) != 0 {
		h.Errorf("unknown x5t: got %d credentials, %v", len(got), err)
	}
	h.told()
}

func testCredentialPublishedAgain(h *harness) {
	ctx, org, other, k := h.Context(), h.org("fabrikam.com"), h.org("other.com"), newKey(h)
	given := k.certificate(year)
	published := given
	published.Published = true
	_, err := h.AddCredential(ctx, org, published)
	h.ok(err) // picked up
	_, err = h.AddCredential(ctx, org, published)
	h.want(err, registry.ErrCredentialExists)
	h.ok(h.RemoveCredential(ctx, org, thumbprintOf(given)))
	h.forget()
	for range 2 { // the document still shows it
		_, err = h.AddCredential(ctx, org, published)
		h.want(err, registry.ErrCredentialRemoved)
	}
	h.told()
	renewed := k.certificate(2 * year)
	renewed.Published = true
	_, err = h.AddCredential(ctx, org, renewed)
	h.ok(err) // another certificate is another statement
	h.ok(h.RemoveCredential(ctx, org, thumbprintOf(renewed)))
	_, err = h.AddCredential(ctx, other, published)
	h.ok(err) // what one organization removed is nothing to another
	h.ok(h.RemoveCredential(ctx, other, thumbprintOf(given)))
	_, err = h.AddCredential(ctx, org, given)
	h.ok(err) // by hand it comes back
	h.ok(h.RemoveCredential(ctx, org, thumbprintOf(given)))
	_, err = h.AddCredential(ctx, org, published)
	h.want(err, registry.ErrCredentialRemoved)
}

func thumbprintOf(c registry.NewCredential) string {
	sum := sha1.Sum(c.Certificate)
	return hex.EncodeToString(sum[:])
}
