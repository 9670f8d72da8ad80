package apns

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v4"
)

func testTokenConfig(t *testing.T) TokenConfig {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return TokenConfig{Key: key, KeyID: "KEY0000001", TeamID: "TEAM000001"}
}

func TestTokenIsWhatAppleAsksFor(t *testing.T) {
	config := testTokenConfig(t)
	s, err := NewTokenSource(config)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	made, err := s.get(now)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.TrimPrefix(made.bearer, "bearer ")
	parsed, err := jwt.Parse(text, func(*jwt.Token) (any, error) { return &config.Key.PublicKey, nil })
	if err != nil {
		t.Fatal(err)
	}
	claims := parsed.Claims.(jwt.MapClaims)
	if parsed.Header["alg"] != "ES256" || parsed.Header["kid"] != "KEY0000001" || claims["iss"] != "TEAM000001" ||
		claims["iat"] != float64(now.Unix()) || len(claims) != 2 {
		t.Errorf("header %v, claims %v", parsed.Header, claims)
	}
}

func TestTokenFromFile(t *testing.T) {
	config := testTokenConfig(t)
	der, err := x509.MarshalPKCS8PrivateKey(config.Key)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "key.p8")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	byKey := config
	config.Key, config.KeyFile = nil, file
	var sources TokenSources
	a, err := sources.Get(config)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := sources.Get(byKey); err != nil || a != b {
		t.Errorf("the same key made two sources: %v", err)
	}
	byKey.Environment = Sandbox
	if b, err := sources.Get(byKey); err != nil || a == b {
		t.Errorf("two environments share a source: %v", err)
	}
	for _, bad := range []TokenConfig{{}, {KeyFile: file}, {KeyFile: file + "x", KeyID: "KEY0000001", TeamID: "TEAM000001"}} {
		if _, err := NewTokenSource(bad); err == nil {
			t.Errorf("%+v was accepted", bad)
		}
	}
}

func TestTokenRenewal(t *testing.T) {
	config := testTokenConfig(t)
	synctest.Test(t, func(t *testing.T) {
		s, err := NewTokenSource(config)
		if err != nil {
			t.Fatal(err)
		}
		get := func() *providerToken {
			t.Helper()
			p, err := s.get(time.Now())
			if err != nil {
				t.Fatal(err)
			}
			return p
		}
		first := get()
		time.Sleep(50*time.Minute - time.Millisecond)
		if get() != first {
			t.Error("renewed before 50 minutes")
		}
		time.Sleep(time.Millisecond)
		second := get()
		if second == first {
			t.Error("not renewed at 50 minutes")
		}

		// Apple finds that too soon: the first again, until it is 58 minutes old.
		s.keepOlder(second, time.Now())
		if got := get(); got.bearer != first.bearer {
			t.Error("the older token was not put back")
		}
		time.Sleep(8*time.Minute - time.Millisecond)
		if got := get(); got.bearer != first.bearer {
			t.Error("the older token was given up early")
		}
		time.Sleep(time.Millisecond)
		if get() != second {
			t.Error("the newer token did not come back")
		}

		// Expired, says Apple: at most once in 20 minutes.
		if s.renew(second, time.Now()) {
			t.Error("renewed a token 8 minutes old")
		}
		time.Sleep(12 * time.Minute)
		if !s.renew(second, time.Now()) || get() == second {
			t.Error("not renewed after 20 minutes")
		}
		if !s.renew(second, time.Now()) {
			t.Error("a token that was renewed already is a failure")
		}
		if s.renew(get(), time.Now()) {
			t.Error("renewed twice at once")
		}
	})
}

func TestTokenAfterTheClockWasSet(t *testing.T) {
	config := testTokenConfig(t)
	for _, step := range []time.Duration{-400 * 24 * time.Hour, -clockStep, clockStep, 2 * time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			s, err := NewTokenSource(config)
			if err != nil {
				t.Fatal(err)
			}
			first, err := s.get(time.Now())
			if err != nil || first.early {
				t.Fatalf("first token: %v, early %v", err, first.early)
			}
			time.Sleep(time.Minute)
			s.SetClock(step - step/clockStep.Abs()*time.Nanosecond) // a little less
			if step.Abs() == clockStep && s.correct(first, time.Now()) {
				t.Errorf("clock moved by a little less than %v: want no other token", step)
			}
			s.SetClock(step / clockStep.Abs() * time.Nanosecond)
			if kept, _ := s.get(time.Now()); kept != first {
				t.Errorf("clock set by %v: a token that nobody refused was replaced", step)
			}
			if !s.correct(first, time.Now()) {
				t.Fatalf("clock set by %v: no other token in place of a refused one", step)
			}
			second, err := s.get(time.Now())
			if err != nil || second == first || !second.early {
				t.Errorf("clock set by %v: got %v, early %v; want another token, known to come early", step, err, second.early)
			}
			if s.correct(second, time.Now()) || s.renew(second, time.Now()) {
				t.Errorf("clock set by %v: renewed twice for one step", step)
			}
		})
	}
}

func TestTokenIsMadeOnce(t *testing.T) {
	s, err := NewTokenSource(testTokenConfig(t))
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	var wg sync.WaitGroup
	var made sync.Map
	for range 16 {
		wg.Go(func() {
			p, err := s.get(now)
			if err != nil {
				t.Error(err)
			}
			made.Store(p, true)
		})
	}
	wg.Wait()
	n := 0
	made.Range(func(any, any) bool { n++; return true })
	if n != 1 {
		t.Errorf("%d tokens made at once", n)
	}
}
