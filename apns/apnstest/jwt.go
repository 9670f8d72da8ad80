package apnstest

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"math/big"
	"strings"
)

// providerToken is what a provider token says, before its signature is
// verified. Source: Apple, "Establishing a token-based connection to APNs"
// (read 2026-11).
type providerToken struct {
	team, key string
	issuedAt  int64 // Unix seconds
	signed    string
	signature []byte
}

var errToken = errors.New("not a provider token")

// parseToken takes a token apart. Its errors say what is wrong, for notes.
func parseToken(text string) (providerToken, error) {
	parts := strings.Split(text, ".")
	if len(parts) != 3 {
		return providerToken{}, errors.New("token does not have three parts")
	}
	var header struct {
		Algorithm string `json:"alg"`
		KeyID     string `json:"kid"`
	}
	if err := decodePart(parts[0], &header); err != nil {
		return providerToken{}, errors.New("token header is not base64url of JSON")
	}
	if header.Algorithm != "ES256" {
		return providerToken{}, errors.New("token algorithm is not ES256")
	}
	var claims struct {
		Issuer   string       `json:"iss"`
		IssuedAt *json.Number `json:"iat"`
	}
	if err := decodePart(parts[1], &claims); err != nil {
		return providerToken{}, errors.New("token claims are not base64url of JSON")
	}
	if claims.IssuedAt == nil || claims.Issuer == "" || header.KeyID == "" {
		return providerToken{}, errors.New("token lacks kid, iss or iat")
	}
	iat, err := claims.IssuedAt.Int64()
	if err != nil {
		return providerToken{}, errors.New("token iat is not a whole number")
	}
	sig, err := base64.RawURLEncoding.DecodeString(parts[2])
	if err != nil {
		return providerToken{}, errors.New("token signature is not base64url")
	}
	return providerToken{claims.Issuer, header.KeyID, iat, text[:len(parts[0])+1+len(parts[1])], sig}, nil
}

func decodePart(part string, v any) error {
	raw, err := base64.RawURLEncoding.DecodeString(part)
	if err != nil {
		return err
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	if err := d.Decode(v); err != nil {
		return err
	}
	if d.More() {
		return errToken
	}
	return nil
}

// verify reports whether key made the signature: R||S (RFC 7518, section
// 3.4), or DER where that is accepted.
func (t *providerToken) verify(key *ecdsa.PublicKey, der bool) bool {
	sum := sha256.Sum256([]byte(t.signed))
	if len(t.signature) == 64 {
		r, s := new(big.Int).SetBytes(t.signature[:32]), new(big.Int).SetBytes(t.signature[32:])
		if ecdsa.Verify(key, sum[:], r, s) {
			return true
		}
	}
	return der && ecdsa.VerifyASN1(key, sum[:], t.signature)
}
