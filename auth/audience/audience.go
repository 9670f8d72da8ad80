// Package audience takes apart and forms the names by which a token says whom it
// is for and from: an audience is `<principal GUID>/<host[:port]>@<realm>`
// (MS-XOAUTH, section 2.2). All compare with A to Z folded.
package audience

import (
	"net/netip"
	"strconv"
	"strings"
)

// Audience is whom a token is for.
type Audience struct {
	// Principal is the GUID of the service.
	Principal string
	// Authority is its host or host:port, as in a URL.
	Authority string
	// Realm is the organization's domain or GUID.
	Realm string
}

// Parse takes an audience apart. ok says whether it has the form.
func Parse(s string) (a Audience, ok bool) {
	target, realm, ok := strings.Cut(s, "@")
	principal, authority, slash := strings.Cut(target, "/")
	return Audience{principal, authority, realm}, ok && slash && IsGUID(principal) && IsAuthority(authority) && IsRealm(realm)
}

// String returns the audience as tokens and auth metadata documents have it.
func (a Audience) String() string { return a.Principal + "/" + TrimPort(a.Authority) + "@" + a.Realm }

// IsGUID reports whether s is a GUID in its plain form, in any case.
func IsGUID(s string) bool {
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

// IsRealm reports whether s can be a realm: a domain or a GUID, never `*`.
func IsRealm(s string) bool {
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
	return IsRealm(host) && (!more || isPort(port))
}

func isPort(s string) bool {
	n, err := strconv.ParseUint(s, 10, 16) // takes digits only, no sign
	return err == nil && n > 0 && len(s) <= 5
}

// notDomain is whether c can't be in a domain name. Letters beyond ASCII
// are left to the comparison with the organization's name.
func notDomain(c rune) bool {
	return c <= ' ' || c == 0x7f || strings.ContainsRune(`@/\:*?#[]"<>`, c)
}

// TrimPort leaves out the port that an authority need not name: an audience
// has a port only where it is not 443 (MS-XOAUTH, section 2.2).
func TrimPort(authority string) string { return strings.TrimSuffix(authority, ":443") }

// Equal compares with A to Z folded and nothing else: GUIDs, realms and
// hosts compare case-insensitively, but a Kelvin sign is not a k.
func Equal(a, b string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range len(a) {
		if lowerASCII(a[i]) != lowerASCII(b[i]) {
			return false
		}
	}
	return true
}

func lowerASCII(c byte) byte {
	if c >= 'A' && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}
