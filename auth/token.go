package auth

import (
	"badgerelay/auth/audience"
	"badgerelay/auth/certs"
	"badgerelay/auth/internal/strict"
	"encoding/base64"
	"strings"
)

// Limits of a token in bytes; the header's and payload's are of the decoded
// ones. Ours: real tokens have about 1 KiB in all.
const (
	MaxTokenSize   = 8 << 10
	maxHeaderSize  = 1 << 10
	maxPayloadSize = 4 << 10
)

// token is a token whose form is right and whose signature nobody has checked.
type token struct {
	x5t [20]byte
	// x5tS256 is the SHA-256 of the certificate, if the header names it.
	x5tS256    [32]byte
	hasS256    bool
	claims     claims
	signedSize int // of the signature
}

// The names a producer may use, and those that are refused by name. A member
// that differs from one of them only in case is refused: one reader would
// take it for the known one and another would not.
var (
	knownHeader = []string{"typ", "alg", "x5t", "x5t#S256", "kid", "cty"}
	// A key or a place to fetch one from (RFC 8725, section 3.10), and
	// everything that changes how the token is to be read.
	forbiddenHeader = []string{"jwk", "jku", "x5u", "x5c", "crit", "zip", "b64", "enc"}

	knownClaims = []string{"aud", "iss", "nameid", "nbf", "exp", "iat", "jti", "sub", "oid",
		"trustedfordelegation", "identityprovider"}
	// Claims of the other tokens that the same certificate signs: identity and
	// callback tokens (RFC 8725, section 3.12: tell kinds apart).
	otherKinds = []string{"appctx", "ver", "scope", "scp"}
	// Members that hold an actor token: their owner is an outer token, which
	// lets whoever holds the inner one be anybody (CVE-2025-55241).
	actorMembers = []string{"actortoken", "actort"}
)

// parseToken takes a token apart. It checks everything that needs neither key
// nor clock, and costs no more than a few microseconds.
func parseToken(s string) (*token, *TokenError) {
	if len(s) > MaxTokenSize {
		return nil, refuse(ReasonTooLarge, "token is larger than 8 KiB")
	}
	if strings.Count(s, ".") != 2 {
		return nil, refuse(ReasonMalformed, "token has not exactly two dots")
	}
	rawHeader, rest, _ := strings.Cut(s, ".")
	rawPayload, rawSignature, _ := strings.Cut(rest, ".")
	header, refusal := decodePart(rawHeader, maxHeaderSize)
	if refusal != nil {
		return nil, refusal
	}
	payload, refusal := decodePart(rawPayload, maxPayloadSize)
	if refusal != nil {
		return nil, refusal
	}
	signature, err := strict.DecodeBase64URL(rawSignature)
	if err != nil {
		return nil, refuse(ReasonMalformed, "signature is not base64url")
	}
	if refusal := checkKind(header, payload); refusal != nil {
		return nil, refusal
	}
	t := &token{signedSize: len(signature)}
	if refusal := t.readHeader(header); refusal != nil {
		return t, refusal
	}
	t.claims, refusal = readClaims(payload)
	return t, refusal
}

// decodePart decodes the header or payload into one strict JSON object.
func decodePart(s string, limit int) (*strict.Value, *TokenError) {
	if base64.RawURLEncoding.DecodedLen(len(s)) > limit {
		return nil, refuse(ReasonTooLarge, "header is larger than 1 KiB or payload than 4 KiB")
	}
	data, err := strict.DecodeBase64URL(s)
	if err != nil {
		return nil, refuse(ReasonMalformed, "header or payload is not base64url")
	}
	v, err := strict.ParseObject(data)
	if err != nil {
		return nil, refuse(ReasonMalformed, "header or payload is not a strict JSON object")
	}
	return v, nil
}

// checkKind refuses names that are twisted, and tokens of other kinds.
func checkKind(header, payload *strict.Value) *TokenError {
	if header.AnyMember(isActor) || payload.AnyMember(isActor) {
		return refuse(ReasonKind, "an outer token, with an actor token inside")
	}
	if twisted(header, knownHeader, forbiddenHeader) || twisted(payload, knownClaims, otherKinds) {
		return refuse(ReasonMalformed, "a member differs from a known one only in case")
	}
	if hasAny(payload, otherKinds) {
		return refuse(ReasonKind, "claims of an identity, callback or user token")
	}
	if _, ok := payload.Member("nameid"); !ok {
		return refuse(ReasonKind, "no nameid: a request to a token service")
	}
	if typ, ok := header.Member("typ"); ok && (typ.Kind != strict.String || !audience.Equal(typ.Text, "JWT")) {
		return refuse(ReasonKind, "typ is not JWT")
	}
	return nil
}

func isActor(name string) bool {
	for _, actor := range actorMembers {
		if strings.EqualFold(name, actor) {
			return true
		}
	}
	return false
}

// twisted reports whether a member of v has a known name in another case.
// Unicode folding is the widest that any decoder uses for names.
func twisted(v *strict.Value, lists ...[]string) bool {
	for i := range v.Members {
		for _, names := range lists {
			for _, known := range names {
				if name := v.Members[i].Name; name != known && strings.EqualFold(name, known) {
					return true
				}
			}
		}
	}
	return false
}

func hasAny(v *strict.Value, names []string) bool {
	for _, name := range names {
		if _, ok := v.Member(name); ok {
			return true
		}
	}
	return false
}

// readHeader checks the header and keeps the thumbprints of the key.
func (t *token) readHeader(header *strict.Value) *TokenError {
	alg, ok := header.Member("alg")
	if !ok || alg.Kind != strict.String || alg.Text != "RS256" {
		return refuse(ReasonAlgorithm, "alg is not RS256")
	}
	if hasAny(header, forbiddenHeader) {
		return refuse(ReasonHeader, "a forbidden header member")
	}
	x5t, ok := header.Member("x5t")
	if !ok || x5t.Kind != strict.String || !certs.DecodeThumbprint(x5t.Text, t.x5t[:]) {
		return refuse(ReasonHeader, "x5t is missing or not 20 bytes")
	}
	if s256, ok := header.Member("x5t#S256"); ok {
		if s256.Kind != strict.String || !certs.DecodeThumbprint(s256.Text, t.x5tS256[:]) {
			return refuse(ReasonHeader, "x5t#S256 is not 32 bytes")
		}
		t.hasS256 = true
	}
	return nil
}
