package auth_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"badgerelay/auth"
	"badgerelay/auth/authtest"
	"badgerelay/auth/certs"
)

func issuerConfig(key *authtest.Key) auth.IssuerConfig {
	return auth.IssuerConfig{
		Key: key.Private, Certificate: key.Certificate, Realm: realm,
		TargetPrincipal: authtest.Principal, Authority: authtest.Authority,
	}
}

func TestIssuer(t *testing.T) {
	base := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
	key := authtest.NewKeyValid(realm, base, base.Add(20*time.Hour))
	synctest.Test(t, func(t *testing.T) {
		issuer, err := auth.NewIssuer(issuerConfig(key))
		if err != nil {
			t.Fatal(err)
		}
		v, _ := newValidator(t, nil, key.Credential("c1", 7, realm))
		token := func(unlike string) (string, time.Time) {
			t.Helper()
			token, expires, err := issuer.Token(t.Context(), unlike)
			if err != nil {
				t.Fatal(err)
			}
			if p, err := v.Validate(t.Context(), token); err != nil || !p.ExpiresAt.Equal(expires) {
				t.Fatalf("got %+v and %v, want a good token until %v", p, err, expires)
			}
			return token, expires
		}
		first, expires := token("")
		if want := base.Add(8 * time.Hour); !expires.Equal(want) {
			t.Errorf("got expiry %v, want %v", expires, want)
		}
		checkIssued(t, first, key)
		second, _ := token(first)
		third, _ := token(second)
		if second == first || third == second {
			t.Error("got the token again that will not do")
		}
		time.Sleep(6*time.Hour - time.Nanosecond)
		if got, _ := token(""); got != third {
			t.Error("got a new token with more than a quarter left")
		}
		time.Sleep(time.Nanosecond)
		if got, _ := token(""); got == third {
			t.Error("got the old token with a quarter left")
		}
		time.Sleep(8 * time.Hour)
		if _, expires := token(""); !expires.Equal(base.Add(20 * time.Hour)) {
			t.Errorf("got expiry %v, want the certificate's", expires)
		}
		time.Sleep(6 * time.Hour)
		if _, _, err := issuer.Token(t.Context(), ""); !errors.Is(err, certs.ErrCertificate) {
			t.Errorf("ended certificate: got %v, want %v", err, certs.ErrCertificate)
		}
	})
}

// checkIssued checks that a token has exactly the members of the format.
func checkIssued(t *testing.T, token string, key *authtest.Key) {
	t.Helper()
	parts := strings.Split(token, ".")
	for i, want := range []map[string]any{
		{"typ": "JWT", "alg": "RS256", "x5t": certs.FormatX5T(certs.X5T(key.Certificate))},
		{"aud": authtest.Principal + "/" + authtest.Authority + "@" + realm, "iss": auth.PrincipalExchange + "@" + realm,
			"nameid": auth.PrincipalExchange + "@" + realm, "nbf": 946684800., "exp": 946713600.},
	} {
		raw, err := base64.RawURLEncoding.DecodeString(parts[i])
		if err != nil {
			t.Fatal(err)
		}
		var got map[string]any
		if err := json.Unmarshal(raw, &got); err != nil {
			t.Fatal(err)
		}
		for name := range want {
			if got[name] != want[name] {
				t.Errorf("%s: got %v, want %v", name, got[name], want[name])
			}
		}
		if len(got) != len(want) {
			t.Errorf("got members %v, want only %v", got, want)
		}
	}
}

func TestIssuerConfig(t *testing.T) {
	key, other := authtest.NewKey(realm, time.Now()), authtest.NewKey("other.example", time.Now())
	for name, change := range map[string]func(*auth.IssuerConfig){
		"no certificate":  func(c *auth.IssuerConfig) { c.Certificate = nil },
		"no key":          func(c *auth.IssuerConfig) { c.Key = nil },
		"another's key":   func(c *auth.IssuerConfig) { c.Key = other.Private },
		"realm":           func(c *auth.IssuerConfig) { c.Realm = "a@b" },
		"principal":       func(c *auth.IssuerConfig) { c.Principal = "x" },
		"target":          func(c *auth.IssuerConfig) { c.TargetPrincipal = "" },
		"authority":       func(c *auth.IssuerConfig) { c.Authority = "https://relay" },
		"lifetime long":   func(c *auth.IssuerConfig) { c.Lifetime = 25 * time.Hour },
		"lifetime brief":  func(c *auth.IssuerConfig) { c.Lifetime = time.Second },
		"lifetime before": func(c *auth.IssuerConfig) { c.Lifetime = -time.Hour },
	} {
		config := issuerConfig(key)
		change(&config)
		if _, err := auth.NewIssuer(config); err == nil {
			t.Errorf("%s: got no error, want one", name)
		}
	}
}

// The facts of the seed and of MS-XOAUTH 4.2.
func TestX5TForms(t *testing.T) {
	x5t := [20]byte{0x75, 0x95, 0xDB, 0xDE, 0xA8, 0x3D, 0xAC, 0xB5, 0x75, 0x74, 0x41, 0xD4, 0x48, 0x99, 0xBC, 0xDB, 0x99, 0x11, 0x25, 0x3C}
	if got, want := certs.FormatX5T(x5t), "dZXb3qg9rLV1dEHUSJm825kRJTw"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
