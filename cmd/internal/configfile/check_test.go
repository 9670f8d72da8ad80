package configfile

import "testing"

func TestPorts(t *testing.T) {
	for address, bad := range map[string][3]bool{ // to listen at, to connect to, as a URL's host
		"a.com:1": {}, "a.com:65535": {}, "[::1]:443": {}, "a.com:0": {false, true, true}, "a.com:65536": {true, true, true},
		"a.com:99999": {true, true, true}, "[::1]:99999": {true, true, true}, "a.com": {true, true, false},
	} {
		var listen, peer, url Checker
		listen.Listen("x", address)
		peer.Peer("x", address)
		url.URLPort("x", "https://"+address+"/path")
		for i, k := range []Checker{listen, peer, url} {
			found := len(k.Found) > 0 && !k.Found[0].Warning
			if found != bad[i] {
				t.Errorf("%s, check %d: found %v, want a problem: %t", address, i, k.Found, bad[i])
			}
		}
	}
}
