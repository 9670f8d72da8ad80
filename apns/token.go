package apns

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// Lifetimes of a provider token. Source: Apple, "Establishing a token-based
// connection to APNs" (read 2026-11): refresh "no more than once every 20
// minutes and no less than once every 60 minutes".
const (
	tokenLifetime    = 60 * time.Minute
	tokenMinInterval = 20 * time.Minute
	// tokenRenewAfter is as near to the hour as is safe with clocks that
	// differ by minutes; ours.
	tokenRenewAfter = 50 * time.Minute
	// tokenLastUse is when an older token that was put back into force is
	// given up at the latest; ours.
	tokenLastUse = 58 * time.Minute
	// clockStep is how far the system's clock must have moved against the time
	// that passed to have been set, not slewed: slewing, 500 parts in a million
	// at most (adjtimex(2)), makes two seconds in an hour. Ours.
	clockStep = 10 * time.Second
)

// TokenConfig says how provider tokens are signed.
type TokenConfig struct {
	KeyFile string            // path of the .p8 file. Read once by NewTokenSource.
	Key     *ecdsa.PrivateKey // instead of KeyFile
	KeyID   string            // ten characters, from Apple's developer account
	TeamID  string            // ten characters
	// Environment that the key is for; part of what makes a source one.
	Environment Environment
}

// Validate returns every problem at once. It reads no file.
func (c TokenConfig) Validate() error {
	var errs []error
	if (c.KeyFile == "") == (c.Key == nil) {
		errs = append(errs, errors.New("exactly one of key file and key is needed"))
	}
	if c.Key != nil && c.Key.Curve != elliptic.P256() {
		errs = append(errs, errors.New("key is not on the curve P-256"))
	}
	if len(c.KeyID) != 10 {
		errs = append(errs, errors.New("key id is not ten characters"))
	}
	if len(c.TeamID) != 10 {
		errs = append(errs, errors.New("team id is not ten characters"))
	}
	return errors.Join(errs...)
}

// TokenSource gives out the provider token of one team, key and environment.
// Every pool of that key must share one source, because Apple counts renewals
// per team. It is safe for concurrent use.
type TokenSource struct {
	config TokenConfig

	current atomic.Pointer[providerToken] // read without mu

	mu       sync.Mutex // held while a token is made; guards what follows
	older    *providerToken
	signedAt time.Time // when the newest token was signed; zero: never
	signedBy time.Time // what the system's clock said then, which is in its iat
}

// providerToken is one signed token. It never changes.
type providerToken struct {
	bearer  string // "bearer " and the token
	issued  time.Time
	renewAt time.Time
	// early: it came sooner after the one before it than Apple allows on a
	// connection, or the clock was set between. Who has shown another leaves.
	early bool
	steps int // how often the clock was set before it was signed, as far as that was noticed
}

// NewTokenSource reads the key and signs nothing yet.
func NewTokenSource(config TokenConfig) (*TokenSource, error) {
	if err := config.Validate(); err != nil {
		return nil, fmt.Errorf("make provider token source: %w", err)
	}
	if config.Key == nil {
		data, err := os.ReadFile(config.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("read provider token key: %w", err)
		}
		if config.Key, err = ParseSigningKey(data); err != nil {
			return nil, fmt.Errorf("read provider token key: %s %w", config.KeyFile, err)
		}
	}
	return &TokenSource{config: config}, nil
}

// TokenSources hands out one TokenSource per team, key and environment. The
// zero value is ready. It is safe for concurrent use.
type TokenSources struct {
	mu      sync.Mutex
	sources map[tokenName]*TokenSource
}

type tokenName struct {
	team, key   string
	environment Environment
}

// Get returns the source for a configuration, a new one the first time. The
// same names with another private key replace the source.
func (s *TokenSources) Get(config TokenConfig) (*TokenSource, error) {
	fresh, err := NewTokenSource(config)
	if err != nil {
		return nil, err
	}
	name := tokenName{config.TeamID, config.KeyID, config.Environment}
	s.mu.Lock()
	defer s.mu.Unlock()
	if known := s.sources[name]; known != nil && known.config.Key.Equal(fresh.config.Key) {
		return known, nil
	}
	if s.sources == nil {
		s.sources = make(map[tokenName]*TokenSource)
	}
	s.sources[name] = fresh
	return fresh, nil
}

// KeyID returns the id of the key.
func (s *TokenSource) KeyID() string { return s.config.KeyID }

// TeamID returns the id of the team.
func (s *TokenSource) TeamID() string { return s.config.TeamID }

// Age returns how long ago the token in use was issued, 0 if none was yet.
func (s *TokenSource) Age(now time.Time) time.Duration {
	if t := s.current.Load(); t != nil {
		return now.Sub(t.issued)
	}
	return 0
}

// get returns the token to use now. Calling it for every batch is cheap.
func (s *TokenSource) get(now time.Time) (*providerToken, error) {
	if t := s.current.Load(); t != nil && now.Before(t.renewAt) {
		return t, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.current.Load()
	if t != nil && now.Before(t.renewAt) {
		return t, nil
	}
	if t != nil && s.older != nil && s.older != t {
		// An older token was put back and is now at its end: the newer one.
		newer := s.older
		s.older = nil
		if now.Before(newer.renewAt) {
			s.current.Store(newer)
			return newer, nil
		}
	}
	return s.signLocked(now)
}

// renew replaces a token that Apple called expired. It reports false if that
// token is too young to be replaced, which means that the clocks differ.
func (s *TokenSource) renew(refused *providerToken, now time.Time) bool {
	return s.replace(refused, now, tokenMinInterval)
}

// correct replaces a token that Apple refused, if the system's clock was set
// since it was signed: the refused token may say a time that never was. It
// reports whether there is another one.
//
// A token that Apple takes is left alone when the clock is set. Its time was
// right, whatever the clock says now, and its age follows from the time that
// passed.
func (s *TokenSource) correct(refused *providerToken, now time.Time) bool {
	return s.replace(refused, now, tokenLifetime)
}

// replace signs another token in place of one that was refused, if that is of
// an age or the clock was set since. It reports whether there is another one.
func (s *TokenSource) replace(refused *providerToken, now time.Time, age time.Duration) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current.Load() != refused {
		return true // somebody else did
	}
	if now.Sub(s.signedAt) < age && !s.clockWasSetLocked(now) {
		return false
	}
	_, err := s.signLocked(now)
	return err == nil
}

// afterRefused returns the token in force while one is refused, and whether the
// system's clock was set since that one was signed: then it is another.
func (s *TokenSource) afterRefused(refused *providerToken, now time.Time) (t *providerToken, clockSet bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t = s.current.Load()
	if t == refused && s.clockWasSetLocked(now) {
		if fresh, err := s.signLocked(now); err == nil {
			t = fresh
		}
	}
	return t, t.steps != refused.steps
}

// clockWasSetLocked reports whether the system's clock was set since the newest
// token was signed. s.mu must be held.
func (s *TokenSource) clockWasSetLocked(now time.Time) bool {
	// Round(0) takes the reading of the monotonic clock off.
	return (now.Round(0).Sub(s.signedBy) - now.Sub(s.signedAt)).Abs() >= clockStep
}

// keepOlder goes back to the token before a refused one, because Apple said
// that tokens are renewed too often.
func (s *TokenSource) keepOlder(refused *providerToken, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current.Load() != refused || s.older == nil {
		return
	}
	until := s.older.issued.Add(tokenLastUse)
	if !now.Before(until) {
		return
	}
	kept := *s.older
	kept.renewAt = until
	s.older = refused // comes back into force when the kept one ends
	s.current.Store(&kept)
}

func (s *TokenSource) signLocked(now time.Time) (*providerToken, error) {
	signed, err := s.sign(now)
	if err != nil {
		return nil, fmt.Errorf("sign provider token: %w", err)
	}
	t := &providerToken{bearer: "bearer " + signed, issued: now, renewAt: now.Add(tokenRenewAfter)}
	s.older = s.current.Load()
	if s.older != nil {
		t.steps = s.older.steps
		if s.clockWasSetLocked(now) {
			t.steps++
		}
		t.early = now.Sub(s.signedAt) < tokenMinInterval || t.steps != s.older.steps
	}
	s.signedAt, s.signedBy = now, now.Round(0)
	s.current.Store(t)
	return t, nil
}

// sign makes an ES256 JSON Web Token with the claims Apple asks for: iss, iat;
// kid and alg in the header; the signature as R||S (RFC 7518, section 3.4).
func (s *TokenSource) sign(now time.Time) (string, error) {
	header, err := json.Marshal(struct {
		Algorithm string `json:"alg"`
		KeyID     string `json:"kid"`
	}{"ES256", s.config.KeyID})
	if err != nil {
		return "", err
	}
	claims, err := json.Marshal(struct {
		Issuer   string `json:"iss"`
		IssuedAt int64  `json:"iat"`
	}{s.config.TeamID, now.Unix()})
	if err != nil {
		return "", err
	}
	text := base64.RawURLEncoding.EncodeToString(header) + "." + base64.RawURLEncoding.EncodeToString(claims)
	digest := sha256.Sum256([]byte(text))
	r, sg, err := ecdsa.Sign(rand.Reader, s.config.Key, digest[:])
	if err != nil {
		return "", err
	}
	var signature [64]byte
	r.FillBytes(signature[:32])
	sg.FillBytes(signature[32:])
	return text + "." + base64.RawURLEncoding.EncodeToString(signature[:]), nil
}
