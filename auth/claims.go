package auth

import (
	"badgerelay/auth/audience"
	"badgerelay/auth/internal/strict"
	"strconv"
	"strings"
	"time"
)

// claims are the five claims that count.
type claims struct {
	audience  audience.Audience
	issuer    party
	nameID    party
	notBefore time.Time
	expires   time.Time
}

// party is `<principal GUID>@<realm>`.
type party struct{ principal, realm string }

// readClaims reads the claims and checks their form. The members that other
// kinds of tokens have were refused before.
func readClaims(payload *strict.Value) (c claims, refusal *TokenError) {
	var ok bool
	if c.issuer, ok = readParty(payload, "iss"); !ok {
		return c, refuse(ReasonClaims, "iss is missing or not GUID@realm")
	}
	if c.nameID, ok = readParty(payload, "nameid"); !ok {
		return c, refuse(ReasonClaims, "nameid is not GUID@realm")
	}
	if c.audience, ok = readAudience(payload); !ok {
		return c, refuse(ReasonClaims, "aud is missing or not GUID/authority@realm")
	}
	if _, there := payload.Member("nbf"); !there {
		return c, refuse(ReasonClaims, "nbf is missing: a token has to say from when it counts")
	}
	if c.notBefore, ok = readTime(payload, "nbf"); !ok {
		return c, refuse(ReasonClaims, "nbf is not a time")
	}
	if c.expires, ok = readTime(payload, "exp"); !ok {
		return c, refuse(ReasonClaims, "exp is missing or not a time")
	}
	if !c.expires.After(c.notBefore) {
		return c, refuse(ReasonClaims, "exp is not after nbf")
	}
	return c, nil
}

func readParty(payload *strict.Value, name string) (party, bool) {
	v, ok := payload.Member(name)
	if !ok || v.Kind != strict.String {
		return party{}, false
	}
	principal, realm, ok := strings.Cut(v.Text, "@")
	return party{principal, realm}, ok && audience.IsGUID(principal) && audience.IsRealm(realm)
}

func readAudience(payload *strict.Value) (audience.Audience, bool) {
	v, ok := payload.Member("aud")
	if !ok || v.Kind != strict.String {
		return audience.Audience{}, false
	}
	return audience.Parse(v.Text)
}

// maxTimeDigits keeps seconds since 1970 below the year 5138, far from where
// sums with durations overflow.
const maxTimeDigits = 11

// readTime reads seconds since 1970: a number, with a fraction from some
// producers, or a string of decimal digits, from Microsoft's.
func readTime(payload *strict.Value, name string) (time.Time, bool) {
	v, ok := payload.Member(name)
	if !ok || (v.Kind != strict.Number && v.Kind != strict.String) {
		return time.Time{}, false
	}
	whole, fraction, dotted := strings.Cut(v.Text, ".")
	if dotted && v.Kind == strict.String {
		return time.Time{}, false
	}
	seconds, ok := readDigits(whole, maxTimeDigits)
	if !ok {
		return time.Time{}, false
	}
	if !dotted {
		return time.Unix(seconds, 0), true
	}
	nanos, ok := readFraction(fraction)
	return time.Unix(seconds, nanos), ok
}

// readFraction returns the nanoseconds of a decimal fraction, rounded down.
func readFraction(s string) (int64, bool) {
	const maxDigits = 20 // more than any float prints
	if len(s) > maxDigits || strings.Trim(s, "0123456789") != "" {
		return 0, false
	}
	return readDigits((s + "000000000")[:9], 9)
}

// readDigits reads a number of decimal digits and nothing else, so that
// signs, exponents, NaN and infinity are refused.
func readDigits(s string, most int) (int64, bool) {
	if s == "" || len(s) > most || strings.Trim(s, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil
}
