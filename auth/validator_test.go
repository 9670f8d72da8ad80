package auth_test

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"badgerelay/auth"
	"badgerelay/auth/authtest"
	"badgerelay/auth/certs"

	"github.com/prometheus/client_golang/prometheus"
)

const realm = "fabrikam.com"

// newValidator returns a validator that knows the credentials, through keys.
func newValidator(t testing.TB, change func(*auth.Config), credentials ...auth.Credential) (*auth.Validator, *authtest.Keys) {
	t.Helper()
	keys := &authtest.Keys{}
	keys.Set(credentials...)
	config := auth.Config{Keys: keys, Principal: authtest.Principal, Authorities: []string{"other.example.com", authtest.Authority}}
	if change != nil {
		change(&config)
	}
	v, err := auth.NewValidator(config)
	if err != nil {
		t.Fatal(err)
	}
	return v, keys
}

// reasonOf returns the reason of a refusal, and fails for every other outcome.
func reasonOf(t testing.TB, v *auth.Validator, token string) auth.Reason {
	t.Helper()
	p, err := v.Validate(t.Context(), token)
	refusal, ok := errors.AsType[*auth.TokenError](err)
	if !ok || p != nil {
		t.Fatalf("got principal %v and error %v, want a refusal", p, err)
	}
	return refusal.Reason
}

func TestProducers(t *testing.T) {
	now := time.Now()
	key := authtest.NewKey(realm, now)
	for _, size := range []int{-1, 0} {
		v, _ := newValidator(t, func(c *auth.Config) { c.CacheSize = size }, key.Credential("c1", 7, realm))
		for _, token := range authtest.Producers(key, realm, now.Add(2*time.Second).Truncate(time.Second)) {
			if token.Name == "nbf ahead by the skew" {
				continue // TestSkew has it, on a clock that stands still
			}
			for range 2 {
				p, err := v.Validate(t.Context(), token.Token)
				if err != nil {
					refusal, _ := errors.AsType[*auth.TokenError](err)
					t.Errorf("%s: got %v (%s), want it accepted", token.Name, err, refusal.Detail())
					continue
				}
				if p.OrganizationID != 7 || p.Organization != realm || p.CredentialID != "c1" ||
					p.X5T != certs.X5T(key.Certificate) || p.KeySHA256 != certs.KeySHA256(key.Certificate) {
					t.Errorf("%s: got principal %+v", token.Name, p)
				}
			}
		}
	}
}

func TestHostile(t *testing.T) {
	now := time.Now()
	key := authtest.NewKey(realm, now)
	v, _ := newValidator(t, nil, key.Credential("c1", 7, realm))
	seen := make(map[string]bool)
	for _, token := range authtest.Hostile(key, realm, now) {
		if seen[token.Name] {
			t.Errorf("%s: name is used twice", token.Name)
		}
		seen[token.Name] = true
		for range 2 { // the second time says the same: refusals are not remembered
			p, err := v.Validate(t.Context(), token.Token)
			refusal, ok := errors.AsType[*auth.TokenError](err)
			if !ok || p != nil {
				t.Errorf("%s: got principal %v and error %v, want reason %v", token.Name, p, err, token.Reason)
				break
			}
			if refusal.Reason != token.Reason {
				t.Errorf("%s: got reason %v (%s), want %v", token.Name, refusal.Reason, refusal.Detail(), token.Reason)
			}
			if text := err.Error() + refusal.Detail() + refusal.LogValue().String(); len(token.Token) > 8 && strings.Contains(text, token.Token[:8]) {
				t.Errorf("%s: the error tells of the token: %s", token.Name, text)
			}
		}
	}
}

func TestSkew(t *testing.T) {
	key := authtest.NewKeyValid(realm, time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2004, 1, 1, 0, 0, 0, 0, time.UTC))
	synctest.Test(t, func(t *testing.T) {
		v, _ := newValidator(t, nil, key.Credential("c1", 7, realm))
		start := time.Now()
		token := authtest.Good(key, realm, start.Add(time.Hour))
		expires := start.Add(9 * time.Hour)

		time.Sleep(55*time.Minute - time.Nanosecond)
		if got := reasonOf(t, v, token); got != auth.ReasonNotYetValid {
			t.Errorf("just before nbf less skew: got %v, want %v", got, auth.ReasonNotYetValid)
		}
		time.Sleep(time.Nanosecond)
		p, err := v.Validate(t.Context(), token)
		if err != nil || !p.ExpiresAt.Equal(expires) || !p.GoodUntil.Equal(expires.Add(300*time.Second+1)) {
			t.Fatalf("at nbf less skew: got %+v and %v, want it accepted until %v and the skew", p, err, expires)
		}
		time.Sleep(time.Until(expires.Add(300 * time.Second)))
		if _, err := v.Validate(t.Context(), token); err != nil {
			t.Errorf("at exp plus skew: got %v, want it accepted", err)
		}
		time.Sleep(time.Nanosecond)
		if got := reasonOf(t, v, token); got != auth.ReasonExpired {
			t.Errorf("just after exp plus skew: got %v, want %v", got, auth.ReasonExpired)
		}
	})
}

func TestCredentialPeriod(t *testing.T) {
	base := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC) // where a bubble's clock starts
	key := authtest.NewKeyValid(realm, base.Add(time.Hour), base.Add(6*time.Hour))
	for _, test := range []struct {
		name                string
		start, end          time.Time
		wantStart, wantEnds time.Duration
	}{
		{"credential within", base.Add(2 * time.Hour), base.Add(3 * time.Hour), 2 * time.Hour, 3 * time.Hour},
		{"certificate alone", time.Time{}, time.Time{}, time.Hour, 6 * time.Hour},
		{"certificate within", base, base.Add(9 * time.Hour), time.Hour, 6 * time.Hour},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				credential := key.Credential("c1", 7, realm)
				credential.StartAt, credential.EndAt = test.start, test.end
				v, _ := newValidator(t, nil, credential)
				token := authtest.Good(key, realm, base)

				time.Sleep(test.wantStart - time.Nanosecond)
				if got := reasonOf(t, v, token); got != auth.ReasonKeyNotYetValid {
					t.Errorf("before start: got %v, want %v", got, auth.ReasonKeyNotYetValid)
				}
				time.Sleep(time.Nanosecond)
				p, err := v.Validate(t.Context(), token)
				if err != nil || !p.ExpiresAt.Equal(base.Add(test.wantEnds)) || !p.GoodUntil.Equal(p.ExpiresAt) {
					t.Fatalf("at start: got %+v and %v, want it accepted until %v", p, err, base.Add(test.wantEnds))
				}
				time.Sleep(time.Until(base.Add(test.wantEnds)) - time.Nanosecond)
				if _, err := v.Validate(t.Context(), token); err != nil {
					t.Errorf("before end: got %v, want it accepted", err)
				}
				time.Sleep(time.Nanosecond)
				if got := reasonOf(t, v, token); got != auth.ReasonKeyExpired {
					t.Errorf("at end: got %v, want %v (also from the cache)", got, auth.ReasonKeyExpired)
				}
			})
		})
	}
}

func TestDisabledOrganization(t *testing.T) {
	key := authtest.NewKey(realm, time.Now())
	credential := key.Credential("c1", 7, realm)
	credential.Enabled = false
	v, _ := newValidator(t, nil, credential)
	if got := reasonOf(t, v, authtest.Good(key, realm, time.Now())); got != auth.ReasonOrganizationDisabled {
		t.Errorf("got %v, want %v", got, auth.ReasonOrganizationDisabled)
	}
	// Only the holder of the key learns that the organization is disabled.
	forged := authtest.Sign(authtest.NewKey("forger", time.Now()).Private, authtest.Header(key), authtest.Claims(realm, time.Now(), ""))
	if got := reasonOf(t, v, forged); got != auth.ReasonSignature {
		t.Errorf("forged: got %v, want %v", got, auth.ReasonSignature)
	}
}

// Several credentials may stand behind one x5t: one good one is enough, and
// the tenant is the one of the key that verifies.
func TestSeveralCredentials(t *testing.T) {
	now := time.Now()
	key := authtest.NewKey(realm, now)
	ended := key.Credential("ended", 7, realm)
	ended.EndAt = now.Add(-time.Minute)
	foreign := key.Credential("foreign", 8, "other.example")
	good := key.Credential("good", 7, realm)
	v, _ := newValidator(t, nil, ended, foreign, good)
	p, err := v.Validate(t.Context(), authtest.Good(key, realm, now))
	if err != nil || p.CredentialID != "good" {
		t.Errorf("got %+v and %v, want the good credential", p, err)
	}
	v, _ = newValidator(t, nil, foreign)
	if got := reasonOf(t, v, authtest.Good(key, realm, now)); got != auth.ReasonRealm {
		t.Errorf("another's key: got %v, want %v", got, auth.ReasonRealm)
	}
}

func TestLookupFailure(t *testing.T) {
	now := time.Now()
	key := authtest.NewKey(realm, now)
	v, keys := newValidator(t, nil, key.Credential("c1", 7, realm))
	gone := errors.New("registry is gone")
	keys.Fail(gone)
	_, err := v.Validate(t.Context(), authtest.Good(key, realm, now))
	if _, refusal := errors.AsType[*auth.TokenError](err); refusal || !errors.Is(err, gone) {
		t.Errorf("got %v, want the wrapped failure and no refusal", err)
	}
	keys.Fail(nil)
	if _, err := v.Validate(t.Context(), authtest.Good(key, realm, now)); err != nil {
		t.Errorf("after the failure: got %v, want it accepted", err)
	}
}

func TestUnknownKeyHint(t *testing.T) {
	now := time.Now()
	key := authtest.NewKey(realm, now)
	var hints []string
	v, _ := newValidator(t, func(c *auth.Config) {
		c.OnUnknownKey = func(x5t [20]byte, realm string) { hints = append(hints, certs.FormatX5T(x5t)+realm) }
	})
	reasonOf(t, v, authtest.Good(key, realm, now))
	if want := certs.FormatX5T(certs.X5T(key.Certificate)) + realm; len(hints) != 1 || hints[0] != want {
		t.Errorf("got hints %q, want %q", hints, want)
	}
}

func TestMetrics(t *testing.T) {
	now := time.Now()
	key := authtest.NewKey(realm, now)
	registry := prometheus.NewPedanticRegistry()
	accepted := 0
	v, _ := newValidator(t, func(c *auth.Config) {
		c.Registerer = registry
		c.OnAccepted = func(auth.Principal) { accepted++ }
	}, key.Credential("c1", 7, realm))
	token := authtest.Good(key, realm, now)
	for range 3 {
		if _, err := v.Validate(t.Context(), token); err != nil {
			t.Fatal(err)
		}
	}
	reasonOf(t, v, token+".")
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]float64)
	series := 0
	for _, f := range families {
		for _, m := range f.GetMetric() {
			name := f.GetName()
			for _, l := range m.GetLabel() {
				name += "/" + l.GetValue()
				series++
			}
			got[name] = m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	for name, want := range map[string]float64{
		"tokens_accepted_total": 3, "token_cache_hits_total": 2, "token_cache_entries": 1,
		"token_refusals_total/malformed": 1, "token_refusals_total/expired": 0,
	} {
		if got[name] != want {
			t.Errorf("%s: got %v, want %v", name, got[name], want)
		}
	}
	if series != len(auth.Reasons()) || accepted != 3 {
		t.Errorf("got %d reasons and %d calls, want %d and 3", series, accepted, len(auth.Reasons()))
	}
}

func TestConfig(t *testing.T) {
	_, err := auth.NewValidator(auth.Config{Principal: "x", Authorities: []string{"a@b"}, MaxSpan: -1})
	if err == nil || strings.Count(err.Error(), "\n") != 3 {
		t.Errorf("got %v, want four problems", err)
	}
}
