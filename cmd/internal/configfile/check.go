package configfile

import (
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Checker gathers the problems of a file; it knows where each field stands.
// The zero value checks a configuration that is in no file.
type Checker struct {
	File  string
	Lines Lines
	Found []*Problem

	listeners []listener
}

// Bad enters an error.
func (k *Checker) Bad(field, format string, args ...any) {
	k.Found = append(k.Found, &Problem{File: k.File, Line: k.line(field), Field: field, Text: fmt.Sprintf(format, args...)})
}

// badByClock enters an error that the clock alone makes.
func (k *Checker) badByClock(field, format string, args ...any) {
	k.Bad(field, format, args...)
	k.Found[len(k.Found)-1].Clock = true
}

// Warn enters a warning.
func (k *Checker) Warn(field, format string, args ...any) {
	k.Bad(field, format, args...)
	k.Found[len(k.Found)-1].Warning = true
}

// line returns the line of the field or of the nearest group around it that
// is in the file.
func (k *Checker) line(field string) int {
	for field != "" {
		if line, ok := k.Lines[field]; ok {
			return line
		}
		field = field[:max(strings.LastIndexAny(field, ".["), 0)]
	}
	return 0
}

// Loopback says whether address, host:port, is reached from this machine only.
// A name other than localhost counts as reachable from elsewhere.
func Loopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}

// BadAddress says why an address is not host:port; empty: it is.
func BadAddress(address string) string { return badAddress(address, 0) }

func badAddress(address string, least uint64) string {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Sprintf("%q is not host:port", address)
	}
	if strings.ContainsFunc(host, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return fmt.Sprintf("the host %q has a space or a letter that no host's name has; DNS writes other letters with xn--", host)
	}
	return badPort(port, least)
}

// badPort says why a port is not a number from least to 65535; empty: it is.
func badPort(port string, least uint64) string {
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n < least {
		return fmt.Sprintf("the port %q is not a number from %d to 65535", port, least)
	}
	return ""
}

// BadURLPort says why nothing can be reached at the port of a URL; empty: it has none, or
// one that can be, or is no URL at all.
func BadURLPort(address string) string {
	if u, err := url.Parse(address); err == nil && u.Port() != "" {
		return badPort(u.Port(), 1)
	}
	return ""
}

// URLPort checks the port of a URL, if it has one.
func (k *Checker) URLPort(field, address string) {
	if bad := BadURLPort(address); bad != "" {
		k.Bad(field, "%s", bad)
	}
}

// Peer checks that address is host:port, to connect to.
func (k *Checker) Peer(field, address string) {
	if bad := badAddress(address, 1); bad != "" {
		k.Bad(field, "%s", bad)
	}
}

// listener is an address that a field has the program listen on.
type listener struct{ field, address string }

// Listen checks that address is host:port, and that no field before has the program
// listen there.
func (k *Checker) Listen(field, address string) {
	if bad := BadAddress(address); bad != "" {
		k.Bad(field, "%s", bad)
		return
	}
	if _, port, _ := net.SplitHostPort(address); strings.Trim(port, "0") == "" && !Loopback(address) {
		k.Warn(field, "port 0 lets the system choose another port at each start")
	}
	for _, l := range k.listeners {
		if overlap(l.address, address) {
			k.Bad(field, "%s is %s already: each listener needs an address of its own", address, l.field)
			break
		}
	}
	k.listeners = append(k.listeners, listener{field, address})
}

// overlap says whether two listeners can't be open at once.
func overlap(a, b string) bool {
	hostA, portA, _ := net.SplitHostPort(a) // both have been checked
	hostB, portB, _ := net.SplitHostPort(b)
	if portA != portB || strings.Trim(portA, "0") == "" {
		return false
	}
	return hostA == hostB || covers(hostA, hostB) || covers(hostB, hostA)
}

// covers says whether whoever listens on all says so for host, too. No host and ::
// are all addresses, 0.0.0.0 those of IPv4; localhost is 127.0.0.1 (package net).
func covers(all, host string) bool {
	switch all {
	case "", "::":
		return true
	case "0.0.0.0":
		ip, err := netip.ParseAddr(host)
		return host == "localhost" || err == nil && ip.Is4()
	}
	return all == "localhost" && host == "127.0.0.1"
}

// A socket's path must fit in sockaddr_un.sun_path: 108 bytes with the final
// zero (Linux unix(7), read 2026-11). process.ListenSocket makes it under another name in
// its directory: a slash, 2 letters, up to 10 digits and 2 bytes.
const (
	maxSocketPath = 107
	madeUnder     = len("/.s4294967295/s")
)

// Socket checks that a unix socket can have the path, and that nothing else has it.
func (k *Checker) Socket(field, path string) {
	if len(path) > maxSocketPath {
		k.Bad(field, "the path has %d bytes, the system allows %d", len(path), maxSocketPath)
	} else if dir := filepath.Dir(path); len(dir)+madeUnder > maxSocketPath {
		k.Bad(field, "the directory %s has %d bytes, and the socket is made in it under another name first: the system allows %d", dir, len(dir), maxSocketPath-madeUnder)
	} else if info, err := os.Lstat(path); err == nil && info.Mode().Type() != fs.ModeSocket {
		k.Bad(field, "%s is there, and is no socket: name a path at which nothing else is", path)
	}
}

// Duration checks that d is from low to high, or zero.
func (k *Checker) Duration(field string, d Duration, low, high time.Duration) {
	if d != 0 && (time.Duration(d) < low || time.Duration(d) > high) {
		k.Bad(field, "%s is outside %s to %s", d, low, high)
	}
}

// Number checks that n is from low to high, or zero.
func (k *Checker) Number(field string, n, low, high int) {
	if n != 0 && (n < low || n > high) {
		k.Bad(field, "%d is outside %d to %d", n, low, high)
	}
}

// Rate checks that r is from low to high, or zero.
func (k *Checker) Rate(field string, r, low, high float64) {
	if r != 0 && (r < low || r > high) {
		k.Bad(field, "%s is outside %s to %s", Decimal(r), Decimal(low), Decimal(high))
	}
}

// Decimal prints a number without an exponent.
func Decimal(v float64) string { return strconv.FormatFloat(v, 'f', -1, 64) }

// OneOf checks that value is one of words, or empty.
func (k *Checker) OneOf(field, value string, words ...string) {
	if value != "" && !slices.Contains(words, value) {
		k.Bad(field, "%q is not one of %s", value, strings.Join(words, ", "))
	}
}

// Log checks how to log.
func (k *Checker) Log(field string, l Log) {
	if _, ok := logLevels[l.Level]; !ok {
		k.Bad(field+".level", "%q is not one of debug, info, warn, error", l.Level)
	}
	k.OneOf(field+".format", l.Format, "json", "text")
	k.OneOf(field+".mailboxes", l.Mailboxes, "hashed", "clear")
}
