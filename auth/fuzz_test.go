package auth_test

import (
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"badgerelay/auth"
	"badgerelay/auth/authtest"
	"badgerelay/auth/certs"
)

// checkVerdict checks an answer of Validate against the standard library: what
// is accepted is canonical and signed by the key, and what is refused has a
// reason.
func checkVerdict(t *testing.T, key *authtest.Key, token string, p *auth.Principal, err error) {
	t.Helper()
	if err != nil {
		if _, ok := errors.AsType[*auth.TokenError](err); !ok || p != nil {
			t.Fatalf("got %v and %v, want a refusal", p, err)
		}
		return
	}
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		t.Fatalf("accepted %d parts", len(parts))
	}
	var raw [3][]byte
	for i, part := range parts {
		raw[i], err = base64.RawURLEncoding.DecodeString(part)
		if err != nil || base64.RawURLEncoding.EncodeToString(raw[i]) != part {
			t.Fatalf("accepted part %d, which is not canonical base64url", i)
		}
	}
	digest := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
	if err := rsa.VerifyPKCS1v15(&key.Private.PublicKey, crypto.SHA256, digest[:], raw[2]); err != nil {
		t.Fatalf("accepted, but %v", err)
	}
	checkMembers(t, raw[0], raw[1], p)
}

func checkMembers(t *testing.T, header, payload []byte, p *auth.Principal) {
	t.Helper()
	var h, c map[string]any
	if err := errors.Join(json.Unmarshal(header, &h), json.Unmarshal(payload, &c)); err != nil {
		t.Fatalf("accepted, but %v", err)
	}
	realmOf := func(claim string) string {
		text, _ := c[claim].(string)
		return text[strings.LastIndex(text, "@")+1:]
	}
	if h["alg"] != "RS256" || !strings.EqualFold(realmOf("aud"), realm) || !strings.EqualFold(realmOf("iss"), realm) ||
		!strings.EqualFold(realmOf("nameid"), realm) || p.Organization != realm {
		t.Fatalf("accepted %s %s", header, payload)
	}
	for _, name := range []string{"jwk", "jku", "x5u", "x5c", "crit", "zip", "b64", "enc"} {
		if _, ok := h[name]; ok {
			t.Fatalf("accepted header %s", header)
		}
	}
	for _, name := range []string{"actortoken", "actort", "appctx", "ver", "scope", "scp"} {
		if _, ok := c[name]; ok {
			t.Fatalf("accepted payload %s", payload)
		}
	}
}

func FuzzValidate(f *testing.F) {
	now := time.Now()
	key := authtest.NewKey(realm, now)
	v, _ := newValidator(f, nil, key.Credential("c1", 7, realm))
	for _, token := range append(authtest.Producers(key, realm, now), authtest.Hostile(key, realm, now)...) {
		f.Add(token.Token)
	}
	f.Fuzz(func(t *testing.T, token string) {
		p, err := v.Validate(t.Context(), token)
		checkVerdict(t, key, token, p, err)
	})
}

// x5tMark stands for the thumbprint in the fuzzer's headers: each of its
// processes has a key of its own.
const x5tMark = "~x5t~"

// FuzzValidateSigned signs whatever the fuzzer makes up, and so gets behind the
// signature.
func FuzzValidateSigned(f *testing.F) {
	now := time.Now()
	key := authtest.NewKey(realm, now)
	x5t := certs.FormatX5T(certs.X5T(key.Certificate))
	v, _ := newValidator(f, nil, key.Credential("c1", 7, realm))
	for _, token := range append(authtest.Producers(key, realm, now), authtest.Hostile(key, realm, now)...) {
		parts := strings.Split(token.Token, ".")
		if len(parts) != 3 {
			continue
		}
		header, err1 := base64.RawURLEncoding.DecodeString(parts[0])
		payload, err2 := base64.RawURLEncoding.DecodeString(parts[1])
		if errors.Join(err1, err2) == nil {
			f.Add(strings.ReplaceAll(string(header), x5t, x5tMark), string(payload))
		}
	}
	f.Fuzz(func(t *testing.T, header, payload string) {
		token := authtest.Sign(key.Private, strings.ReplaceAll(header, x5tMark, x5t), payload)
		p, err := v.Validate(t.Context(), token)
		checkVerdict(t, key, token, p, err)
	})
}
