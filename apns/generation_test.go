package apns

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"testing"
)

// TestGeneration wants one number for one configuration in every process, and
// another for each thing that decides which devices APNs knows.
func TestGeneration(t *testing.T) {
	key := func() *ecdsa.PrivateKey {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	first, second := key(), key()
	token := func(c TokenConfig) *TokenSource {
		s, err := NewTokenSource(c)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	base := func() Config {
		return Config{App: "mail", Topic: "com.example.mail", Token: token(TokenConfig{Key: first, KeyID: "KEY0000001", TeamID: "TEAM000001"})}
	}
	of := func(change func(*Config)) uint64 {
		c := base()
		change(&c)
		p, err := NewPool(c)
		if err != nil {
			t.Fatal(err)
		}
		return p.Generation()
	}
	seen := map[uint64]string{0: "zero"}
	for name, change := range map[string]func(*Config){
		"as it is":            func(*Config) {},
		"environment":         func(c *Config) { c.Environment = Sandbox },
		"address":             func(c *Config) { c.Addr = "push.example:443" },
		"topic":               func(c *Config) { c.Topic = "com.example.other" },
		"key":                 func(c *Config) { c.Token = token(TokenConfig{Key: second, KeyID: "KEY0000001", TeamID: "TEAM000001"}) },
		"key id":              func(c *Config) { c.Token = token(TokenConfig{Key: first, KeyID: "KEY0000002", TeamID: "TEAM000001"}) },
		"team":                func(c *Config) { c.Token = token(TokenConfig{Key: first, KeyID: "KEY0000001", TeamID: "TEAM000002"}) },
		"certificate":         func(c *Config) { c.Token, c.Certificate = nil, &tls.Certificate{Certificate: [][]byte{{1}}} },
		"another certificate": func(c *Config) { c.Token, c.Certificate = nil, &tls.Certificate{Certificate: [][]byte{{2}}} },
	} {
		generation := of(change)
		if other, twice := seen[generation]; twice {
			t.Errorf("%s has the generation of %s", name, other)
		}
		seen[generation] = name
		if again := of(change); again != generation {
			t.Errorf("%s: %x, then %x", name, generation, again)
		}
	}
	if of(func(c *Config) { c.App = "renamed"; c.MaxConns = 3; c.Engine = EngineReference }) != of(func(*Config) {}) {
		t.Error("what does not concern devices changes the generation")
	}
}
