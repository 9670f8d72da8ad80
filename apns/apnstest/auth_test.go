package apnstest

import (
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestProviderTokens breaks each rule of provider tokens alone.
func TestProviderTokens(t *testing.T) {
	f := fixture()
	head := func() map[string]any { return map[string]any{"alg": "ES256", "kid": keyID} }
	claims := func(age time.Duration) map[string]any {
		return map[string]any{"iss": teamID, "iat": time.Now().Add(-age).Unix()}
	}
	tests := []struct {
		name  string
		token func() string
		want  string
		rule  Rule
	}{
		{"good", func() string { return sign(f.key, head(), claims(0), false) }, "200", ""},
		{"an hour old", func() string { return sign(f.key, head(), claims(time.Hour), false) }, "200", ""},
		{"older", func() string { return sign(f.key, head(), claims(time.Hour+time.Second), false) }, "403 ExpiredProviderToken", RuleTokenExpired},
		{"a minute ahead", func() string { return sign(f.key, head(), claims(-time.Minute), false) }, "200", ""},
		{"more ahead", func() string { return sign(f.key, head(), claims(-time.Minute-time.Second), false) }, "403 InvalidProviderToken", RuleTokenFuture},
		{"other key", func() string { return sign(f.other, head(), claims(0), false) }, "403 InvalidProviderToken", RuleTokenInvalid},
		{"two parts", func() string { return "a.b" }, "403 InvalidProviderToken", RuleTokenInvalid},
		{"not base64url", func() string { return "+.+.+" }, "403 InvalidProviderToken", RuleTokenInvalid},
		{"algorithm", func() string {
			return sign(f.key, map[string]any{"alg": "none", "kid": keyID}, claims(0), false)
		}, "403 InvalidProviderToken", RuleTokenInvalid},
		{"unknown kid", func() string {
			return sign(f.key, map[string]any{"alg": "ES256", "kid": "KEY0000009"}, claims(0), false)
		}, "403 InvalidProviderToken", RuleTokenInvalid},
		{"unknown team", func() string {
			return sign(f.key, head(), map[string]any{"iss": "TEAM000009", "iat": time.Now().Unix()}, false)
		}, "403 InvalidProviderToken", RuleTokenInvalid},
		{"members in upper case", func() string {
			return sign(f.key, map[string]any{"ALG": "ES256", "Kid": keyID}, map[string]any{"ISS": teamID, "IAT": time.Now().Unix()}, false)
		}, "403 InvalidProviderToken", RuleTokenInvalid},
		{"iat of the next millennia", func() string {
			return sign(f.key, head(), map[string]any{"iss": teamID, "iat": json.Number("1e300")}, false)
		}, "403 InvalidProviderToken", RuleTokenInvalid},
		{"iat in text", func() string {
			return sign(f.key, head(), map[string]any{"iss": teamID, "iat": "soon"}, false)
		}, "403 InvalidProviderToken", RuleTokenInvalid},
		{"key of the sandbox", func() string {
			return sign(f.other, map[string]any{"alg": "ES256", "kid": "KEYSANDBOX"}, claims(0), false)
		}, "403 BadEnvironmentKeyIdInToken", RuleTokenKey},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSim(t, nil)
				defer s.Close()
				sandbox := Sandbox
				s.AddTeamKey(TeamKey{TeamID: teamID, KeyID: "KEYSANDBOX", Key: &f.other.PublicKey, OnlyIn: &sandbox})
				c := connect(t, s, nil)
				defer c.close()
				c.token = tt.token()
				if got := c.push(badgeOf3); got != tt.want {
					t.Errorf("answer: got %q, want %q", got, tt.want)
				}
				if got := broken(s); got != tt.rule {
					t.Errorf("rule: got %q, want %q", got, tt.rule)
				}
			})
		})
	}
}

func TestTokenMissing(t *testing.T) {
	fixture()
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t, nil)
		defer s.Close()
		c := connect(t, s, nil)
		defer c.close()
		if got := c.push(badgeOf3, "authorization", "-"); got != "403 MissingProviderToken" {
			t.Errorf("without: got %s, want 403", got)
		}
		if got := c.push(badgeOf3, "authorization", "Basic abc"); got != "403 InvalidProviderToken" {
			t.Errorf("other scheme: got %s, want 403", got)
		}
		if got := c.push(badgeOf3, "authorization", "Bearer "+c.token); got != "200" {
			t.Errorf("scheme in upper case: got %s, want 200 (RFC 9110, section 11.1)", got)
		}
	})
}

// TestTokenForms shows the simulator tokens in the forms that APNs takes beside
// the standard ones, which strict mode refuses.
func TestTokenForms(t *testing.T) {
	f := fixture()
	head := map[string]any{"alg": "ES256", "kid": keyID}
	with := func(iat any) string { return sign(f.key, head, map[string]any{"iss": teamID, "iat": iat}, false) }
	recode := func(token string, encode func([]byte) string) string {
		parts := strings.Split(token, ".")
		for i := range parts[:2] {
			raw, _ := base64.RawURLEncoding.DecodeString(parts[i]) // sign made it
			parts[i] = encode(raw)
		}
		signed := parts[0] + "." + parts[1]
		return signed + "." + encode(signature(f.key, signed, false))
	}
	for _, tt := range []struct {
		name   string
		token  func(now time.Time) string
		strict bool // takes it too
	}{
		{"standard", func(now time.Time) string { return with(now.Unix()) }, true},
		{"with typ", func(now time.Time) string {
			return sign(f.key, map[string]any{"alg": "ES256", "kid": keyID, "typ": "JWT"}, map[string]any{"iss": teamID, "iat": now.Unix()}, false)
		}, true},
		{"signature in DER", func(now time.Time) string {
			return sign(f.key, head, map[string]any{"iss": teamID, "iat": now.Unix()}, true)
		}, false},
		{"iat a float", func(now time.Time) string { return with(float64(now.UnixMilli()) / 1000) }, false},
		{"iat a float without a fraction", func(now time.Time) string {
			return with(json.Number(strconv.FormatInt(now.Unix(), 10) + ".0"))
		}, false},
		{"iat a string", func(now time.Time) string { return with(strconv.FormatInt(now.Unix(), 10)) }, false},
		{"iat a float in a string", func(now time.Time) string { return with(strconv.FormatInt(now.Unix(), 10) + ".25") }, false},
		{"iat in milliseconds", func(now time.Time) string { return with(now.UnixMilli()) }, false},
		{"iat a string of milliseconds", func(now time.Time) string { return with(strconv.FormatInt(now.UnixMilli(), 10)) }, false},
		{"padded", func(now time.Time) string { return recode(with(now.Unix()), base64.URLEncoding.EncodeToString) }, false},
		{"standard alphabet", func(now time.Time) string { return recode(with(now.Unix()), base64.StdEncoding.EncodeToString) }, false},
		{"a member twice", func(now time.Time) string {
			signed := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"ES256","kid":"`+keyID+`"}`)) + "." +
				base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, `{"iss":"TEAM000009","iss":%q,"iat":%d}`, teamID, now.Unix()))
			return signed + "." + base64.RawURLEncoding.EncodeToString(signature(f.key, signed, false))
		}, false},
	} {
		for _, strict := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				s := newSim(t, func(c *Config) { c.Strict = strict })
				defer s.Close()
				c := connect(t, s, nil)
				defer c.close()
				time.Sleep(123 * time.Millisecond) // so that there is a fraction
				c.token = tt.token(time.Now())
				want := "200"
				if strict && !tt.strict {
					want = "403 InvalidProviderToken"
				}
				if got := c.push(badgeOf3); got != want {
					t.Errorf("%s, strict %v: got %s, want %s", tt.name, strict, got, want)
				}
			})
		}
	}
}

// TestIssuedAtInOtherForms holds that a token is as old as it says, however it says it.
func TestIssuedAtInOtherForms(t *testing.T) {
	f := fixture()
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t, nil)
		defer s.Close()
		old := time.Now().Add(-time.Hour - time.Second)
		for _, iat := range []any{old.Unix(), float64(old.Unix()) + 0.5, strconv.FormatInt(old.Unix(), 10), old.UnixMilli()} {
			c := connect(t, s, nil)
			c.token = sign(f.key, map[string]any{"alg": "ES256", "kid": keyID}, map[string]any{"iss": teamID, "iat": iat}, false)
			if got := c.push(badgeOf3); got != "403 ExpiredProviderToken" {
				t.Errorf("iat %v, more than an hour ago: got %s, want 403 ExpiredProviderToken", iat, got)
			}
			c.close()
		}
	})
}

// TestTokenExpiresOnConnection holds rule T3 at its edge, and the connection
// that stays refused afterwards.
func TestTokenExpiresOnConnection(t *testing.T) {
	fixture()
	for _, recovers := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			s := newSim(t, func(c *Config) { c.ExpiredRecovers = recovers })
			defer s.Close()
			c := trusted(t, s)
			defer c.close()
			time.Sleep(time.Hour)
			if got := c.push(badgeOf3); got != "200" {
				t.Errorf("after an hour: got %s, want 200", got)
			}
			time.Sleep(time.Second)
			if got := c.push(badgeOf3); got != "403 ExpiredProviderToken" {
				t.Errorf("a second later: got %s, want 403", got)
			}
			c.token = providerTokenAt(time.Now())
			want := "403 ExpiredProviderToken"
			if recovers {
				want = "200"
			}
			if got := c.push(badgeOf3); got != want {
				t.Errorf("fresh token on the same connection: got %s, want %s", got, want)
			}
			other := connect(t, s, nil)
			defer other.close()
			if got := other.push(badgeOf3); got != "200" {
				t.Errorf("fresh token on a new connection: got %s, want 200", got)
			}
		})
	}
}

// TestTokenUpdates holds rule T5 at its edge.
func TestTokenUpdates(t *testing.T) {
	fixture()
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t, nil)
		defer s.Close()
		c := trusted(t, s)
		defer c.close()
		first := c.token
		time.Sleep(20*time.Minute - time.Second)
		c.token = providerTokenAt(time.Now())
		if got := c.push(badgeOf3); got != "429 TooManyProviderTokenUpdates" {
			t.Errorf("just before 20 minutes: got %s, want 429", got)
		}
		c.token = first
		if got := c.push(badgeOf3); got != "200" {
			t.Errorf("the old token: got %s, want 200", got)
		}
		time.Sleep(time.Second)
		c.token = providerTokenAt(time.Now())
		if got := c.push(badgeOf3); got != "200" {
			t.Errorf("at 20 minutes: got %s, want 200", got)
		}
		if got := s.ClientFaults()[ClientTokenUpdates]; got != 1 {
			t.Errorf("counted: got %d, want 1", got)
		}
	})
}

func TestTokenUpdatesWedgeAndTeamScope(t *testing.T) {
	fixture()
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t, func(c *Config) { c.TokenThrottleWedges, c.TokenScopeTeam = true, true })
		defer s.Close()
		a, b := trusted(t, s), connect(t, s, nil)
		defer a.close()
		defer b.close()
		first := b.token
		time.Sleep(time.Minute)
		b.token = providerTokenAt(time.Now())
		if got := b.push(badgeOf3); got != "429 TooManyProviderTokenUpdates" {
			t.Errorf("another token of the team: got %s, want 429", got)
		}
		b.token = first
		if got := b.push(badgeOf3); got != "429 TooManyProviderTokenUpdates" {
			t.Errorf("the team's token on the same connection: got %s, want it still refused", got)
		}
		time.Sleep(20 * time.Minute)
		if got := b.push(badgeOf3); got != "200" {
			t.Errorf("20 minutes later: got %s, want 200", got)
		}
	})
}

// TestBoundConnection covers rules T6, T7 and T8.
func TestBoundConnection(t *testing.T) {
	f := fixture()
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t, nil)
		defer s.Close()
		s.AddTeamKey(TeamKey{TeamID: "TEAM000002", KeyID: keyID, Key: &f.other.PublicKey})
		s.AddTeamKey(TeamKey{TeamID: teamID, KeyID: "KEY0000002", Key: &f.other.PublicKey})
		c := trusted(t, s)
		defer c.close()
		first := c.token
		time.Sleep(30 * time.Minute)
		now := time.Now().Unix()
		c.token = sign(f.other, map[string]any{"alg": "ES256", "kid": keyID}, map[string]any{"iss": "TEAM000002", "iat": now}, false)
		if got := c.push(badgeOf3); got != "403 InvalidProviderToken" || broken(s) != RuleTokenTeam {
			t.Errorf("other team: got %s by rule %s, want 403 by T6", got, broken(s))
		}
		c.token = sign(f.other, map[string]any{"alg": "ES256", "kid": "KEY0000002"}, map[string]any{"iss": teamID, "iat": now}, false)
		if got := c.push(badgeOf3); got != "403 UnrelatedKeyIdInToken" || broken(s) != RuleTokenKey {
			t.Errorf("other key: got %s by rule %s, want 403 by T7", got, broken(s))
		}
		c.token = first
		s.AddTopic("com.example.later")
		s.RegisterDevice(phone(2), "com.example.later", Production, Meta{})
		later := []string{"apns-topic", "com.example.later", ":path", "/3/device/" + phone(2).Hex()}
		if got := c.push(badgeOf3, later...); got != "400 TopicDisallowed" || broken(s) != RuleTopicAdded {
			t.Errorf("topic added later: got %s by rule %s, want 400 by T8", got, broken(s))
		}
		fresh := connect(t, s, nil)
		defer fresh.close()
		if got := fresh.push(badgeOf3, later...); got != "200" {
			t.Errorf("topic on a new connection: got %s, want 200", got)
		}
	})
}

// TestCertificates covers rule T9: no provider token, no phase of one stream.
func TestCertificates(t *testing.T) {
	f := fixture()
	makeCert := func(topics []string, envs ...Environment) tls.Certificate {
		cert, err := f.ca.ClientCertificate(topics, envs...)
		if err != nil {
			t.Fatal(err)
		}
		return cert
	}
	tests := []struct {
		name    string
		cert    tls.Certificate
		changes []string
		want    string
	}{
		{"good", makeCert([]string{topic}, Production), nil, "200"},
		{"both environments", makeCert([]string{topic}, Production, Sandbox), nil, "200"},
		{"topic by default", makeCert([]string{topic}, Production), []string{"apns-topic", "-"}, "200"},
		{"several topics need one", makeCert([]string{topic, topic + ".voip"}, Production), []string{"apns-topic", "-"}, "400 MissingTopic"},
		{"other topic", makeCert([]string{"com.example.other"}, Production), nil, "400 TopicDisallowed"},
		{"other environment", makeCert([]string{topic}, Sandbox), nil, "403 BadCertificateEnvironment"},
		{"no push certificate", makeCert(nil, Production), nil, "403 BadCertificate"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSim(t, func(c *Config) { c.ClientCAs = f.ca.Pool() })
				defer s.Close()
				c := connect(t, s, func(c *tls.Config) { c.Certificates = []tls.Certificate{tt.cert} })
				defer c.close()
				if got := c.event("settings"); got != "settings 1000" {
					t.Errorf("first limit: got %q, want 1000 at once", got)
				}
				if got := c.push(badgeOf3, append(tt.changes, "authorization", "-")...); got != tt.want {
					t.Errorf("answer: got %q, want %q", got, tt.want)
				}
				if tt.want != "200" && !strings.HasSuffix(tt.want, "MissingTopic") && broken(s) != RuleCertificate {
					t.Errorf("rule: got %q, want T9", broken(s))
				}
			})
		})
	}
}
