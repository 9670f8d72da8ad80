package process

import (
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// KnownHosts refuses requests that were sent to another name than a loopback one,
// one of names, or the address that the connection arrived at. A page of another
// site could have its own name lead here (DNS rebinding), and read what it may not.
// A request without a name comes from no browser, and is served.
func KnownHosts(next http.Handler, names ...string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if host := hostName(r.Host); host != "" && !knownHost(r, host, names) {
			Answer(w, http.StatusMisdirectedRequest, "this listener has no such name; name it under ops.hosts in the configuration")
			return
		}
		next.ServeHTTP(w, r)
	})
}

// hostName is a Host header without its port, in lower case.
func hostName(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	return strings.ToLower(strings.TrimSuffix(strings.Trim(host, "[]"), "."))
}

func knownHost(r *http.Request, host string, names []string) bool {
	if host == "localhost" || slices.ContainsFunc(names, func(n string) bool { return strings.EqualFold(n, host) }) {
		return true
	}
	address, err := netip.ParseAddr(host)
	if err != nil {
		return false
	}
	if address.IsLoopback() {
		return true
	}
	local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if !ok {
		return false
	}
	arrived, err := netip.ParseAddrPort(local.String())
	return err == nil && arrived.Addr().Unmap().WithZone("") == address.Unmap().WithZone("")
}
