package auth

import (
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// claims are the five claims that count.
type claims struct {
	audience  audience
	issuer    party
	nameID    party
	notBefore time.Time
	expires   time.Time
}

// party is `<principal GUID>@<realm>`.
type party struct{ principal, realm string }

// audience is `<principal GUID>/<host[:port]>@<realm>`.
type audience struct{ principal, authority, realm string }

// readClaims reads the claims and checks their form. The members that other
// kinds of tokens have were refused before.
func readClaims(payload *jsonValue) (c claims, refusal *TokenError) {
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
	if _, there := payload.member("nbf"); !there {
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

func readParty(payload *jsonValue, name string) (party, bool) {
	v, ok := payload.member(name)
	if !ok || v.kind != jsonString {
		return party{}, false
	}
	principal, realm, ok := strings.Cut(v.text, "@")
	return party{principal, realm}, ok && isGUID(principal) && isRealm(realm)
}

func readAudience(payload *jsonValue) (audience, bool) {
	v, ok := payload.member("aud")
	if !ok || v.kind != jsonString {
		return audience{}, false
	}
	principal, authority, realm, ok := ParseAudience(v.text)
	return audience{principal, authority, realm}, ok
}

// isGUID reports whether s is a GUID in its plain form, in any case.
func isGUID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i := range len(s) {
		c := lowerASCII(s[i])
		switch i {
		case 8, 13, 18, 23:
			if c != '-' {
				return false
			}
		default:
			if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
				return false
			}
		}
	}
	return true
}

// isRealm reports whether s can be a realm: a domain or a GUID, never `*`.
func isRealm(s string) bool {
	return s != "" && len(s) <= 255 && strings.IndexFunc(s, notDomain) < 0
}

// IsAuthority reports whether s is host, host:port, [IPv6] or [IPv6]:port, as in
// a URL (RFC 3986, section 3.2).
func IsAuthority(s string) bool {
	if len(s) > 261 {
		return false
	}
	if address, bracketed := strings.CutPrefix(s, "["); bracketed {
		address, rest, closed := strings.Cut(address, "]")
		ip, err := netip.ParseAddr(address)
		port, more := strings.CutPrefix(rest, ":")
		return closed && err == nil && ip.Is6() && ip.Zone() == "" && (rest == "" || more && isPort(port))
	}
	host, port, more := strings.Cut(s, ":")
	return isRealm(host) && (!more || isPort(port))
}

func isPort(s string) bool {
	n, ok := readDigits(s, 5)
	return ok && n > 0 && n <= 65535
}

// notDomain is whether c can't be in a domain name. Letters beyond ASCII
// are left to the comparison with the organization's name.
func notDomain(c rune) bool {
	return c <= ' ' || c == 0x7f || strings.ContainsRune(`@/\:*?#[]"<>`, c)
}

// maxTimeDigits keeps seconds since 1970 below the year 5138, far from where
// sums with durations overflow.
const maxTimeDigits = 11

// readTime reads seconds since 1970: a number, with a fraction from some
// producers, or a string of decimal digits, from Microsoft's.
func readTime(payload *jsonValue, name string) (time.Time, bool) {
	v, ok := payload.member(name)
	if !ok || (v.kind != jsonNumber && v.kind != jsonString) {
		return time.Time{}, false
	}
	whole, fraction, dotted := strings.Cut(v.text, ".")
	if dotted && v.kind == jsonString {
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

// trimPort leaves out the port that an authority need not name: an audience
// has a port only where it is not 443 (MS-XOAUTH, section 2.2).
func trimPort(authority string) string { return strings.TrimSuffix(authority, ":443") }

// ParseAudience takes an audience apart, as tokens and auth metadata documents
// have it: `<principal GUID>/<host[:port]>@<realm>`. ok says whether it has
// this form.
func ParseAudience(s string) (principal, authority, realm string, ok bool) {
	target, realm, ok := strings.Cut(s, "@")
	principal, authority, slash := strings.Cut(target, "/")
	return principal, authority, realm, ok && slash && isGUID(principal) && IsAuthority(authority) && isRealm(realm)
}
