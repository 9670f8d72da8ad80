package apnstest

import (
	"crypto/ecdsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"strconv"
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

// parseToken takes a token apart; Config.Strict says what strict refuses. Its
// errors say what is wrong, for notes.
func parseToken(text string, strict bool) (providerToken, error) {
	parts := strings.Split(text, ".")
	if len(parts) != 3 {
		return providerToken{}, errors.New("token does not have three parts")
	}
	header, err := decodePart(parts[0], strict)
	if err != nil {
		return providerToken{}, fmt.Errorf("token header is not base64url of JSON: %w", err)
	}
	claims, err := decodePart(parts[1], strict)
	if err != nil {
		return providerToken{}, fmt.Errorf("token claims are not base64url of JSON: %w", err)
	}
	t := providerToken{team: claims.text("iss"), key: header.text("kid"), signed: text[:len(parts[0])+1+len(parts[1])]}
	if header.text("alg") != "ES256" {
		return providerToken{}, errors.New("token algorithm is not ES256")
	}
	if t.team == "" || t.key == "" || len(claims["iat"]) == 0 {
		return providerToken{}, errors.New("token lacks kid, iss or iat")
	}
	if t.issuedAt, err = parseIssuedAt(claims["iat"], strict); err != nil {
		return providerToken{}, err
	}
	if t.signature, err = decodeBase64(parts[2], strict); err != nil {
		return providerToken{}, fmt.Errorf("token signature is not base64url: %w", err)
	}
	return t, nil
}

// decodePart reads the header or the claims. Of a member that comes twice the
// last one counts (RFC 7519, section 4), unless strict.
func decodePart(part string, strict bool) (members, error) {
	raw, err := decodeBase64(part, strict)
	if err != nil {
		return nil, err
	}
	m, twice, err := parseObject(raw)
	if err == nil && strict && len(twice) > 0 {
		err = fmt.Errorf("%q comes twice", twice[0])
	}
	return m, err
}

// decodeBase64 reads base64url. What is not strict may be padded, and may be
// of the standard alphabet, which the Rust client a2 sends.
func decodeBase64(s string, strict bool) ([]byte, error) {
	if strings.ContainsAny(s, "\r\n") { // the decoder skips them
		return nil, errors.New("line break")
	}
	if !strict {
		if len(s)%4 == 0 {
			s = strings.TrimSuffix(strings.TrimSuffix(s, "="), "=")
		}
		s = strings.NewReplacer("+", "-", "/", "_").Replace(s)
	}
	return base64.RawURLEncoding.Strict().DecodeString(s)
}

// leastMilliseconds is the first iat that is taken for milliseconds: as
// seconds it is in the year 5138, as milliseconds in 1973. Ours.
const leastMilliseconds = 100_000_000_000

// parseIssuedAt reads an iat: a whole number of seconds or, unless strict,
// also a fraction, milliseconds, and each of these as a string, as in Apple's
// own sample.
func parseIssuedAt(raw json.RawMessage, strict bool) (int64, error) {
	number := string(raw)
	if text, err := parseString(raw); err == nil && !strict {
		number = text
	}
	if !isNumber(number) {
		return 0, errors.New("token iat is not a number")
	}
	seconds, err := strconv.ParseInt(number, 10, 64)
	if strict {
		if err != nil || seconds >= leastMilliseconds {
			return 0, errors.New("token iat is not a whole number of seconds")
		}
		return seconds, nil
	}
	if err != nil {
		f, err := strconv.ParseFloat(number, 64)
		if err != nil || f < 0 || f >= 1e18 {
			return 0, errors.New("token iat is out of range")
		}
		seconds = int64(f)
	}
	if seconds >= leastMilliseconds {
		seconds /= 1000
	}
	return seconds, nil
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
