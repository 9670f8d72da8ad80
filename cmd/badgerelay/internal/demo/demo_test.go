package demo

import "testing"

func TestAddressesThatABrowserOpens(t *testing.T) {
	for address, want := range map[string]string{
		"127.0.0.1:9999": "127.0.0.1:9999", "[::]:9999": "localhost:9999", "0.0.0.0:9999": "localhost:9999", "[::1]:9999": "[::1]:9999", "192.0.2.1:9999": "192.0.2.1:9999",
	} {
		if got := toOpen(address); got != want {
			t.Errorf("%s: %s, want %s", address, got, want)
		}
	}
}
