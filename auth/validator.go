package auth

import (
	"badgerelay/auth/audience"
	"badgerelay/auth/certs"
	"context"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/prometheus/client_golang/prometheus"
)

// Defaults of a Config.
const (
	// DefaultSkew is the clock skew of .NET's token handlers.
	DefaultSkew = 300 * time.Second
	// DefaultMaxSpan is a day, the longest lifetime in use, and an hour.
	DefaultMaxSpan = 25 * time.Hour
	// DefaultCacheSize is ours: about 2 MiB when full.
	DefaultCacheSize = 8192
)

// Well-known principals of MS-XOAUTH.
const (
	PrincipalExchange   = "00000002-0000-0ff1-ce00-000000000000"
	PrincipalSharePoint = "00000003-0000-0ff1-ce00-000000000000"
)

// Config of a Validator. None of it can be reloaded.
type Config struct {
	// Keys finds credentials. Required.
	Keys Keys
	// Principal is the GUID that tokens must be meant for. Required.
	Principal string
	// Authorities are the host[:port] that tokens may be meant for, as agents
	// have them in their URLs; port 443 may be left out. The Host of a request
	// plays no part. Required.
	Authorities []string
	// Skew is how far clocks may differ. Zero is DefaultSkew, negative none.
	Skew time.Duration
	// MaxSpan is the longest time from nbf to exp. Zero is DefaultMaxSpan.
	MaxSpan time.Duration
	// CacheSize is how many validated tokens are remembered. Zero is
	// DefaultCacheSize, negative none.
	CacheSize int
	// OnAccepted is told of every accepted token, from the cache or not.
	// It is called on the caller's goroutine and must be quick. May be nil.
	OnAccepted func(Principal)
	// OnUnknownKey is told of tokens whose key is not registered, with the realm
	// that the token claims and nobody has verified: a hint for a Follower and
	// nothing else. It must be quick. May be nil.
	OnUnknownKey func(x5t [20]byte, realm string)
	// Registerer gets the metrics. Nil registers none.
	Registerer prometheus.Registerer
}

func (c *Config) skew() time.Duration {
	if c.Skew == 0 {
		return DefaultSkew
	}
	return max(c.Skew, 0)
}

func (c *Config) maxSpan() time.Duration {
	if c.MaxSpan == 0 {
		return DefaultMaxSpan
	}
	return c.MaxSpan
}

func (c *Config) cacheSize() int {
	if c.CacheSize == 0 {
		return DefaultCacheSize
	}
	return max(c.CacheSize, 0)
}

// Validate returns every problem of the configuration at once.
func (c *Config) Validate() error {
	var errs []error
	if c.Keys == nil {
		errs = append(errs, errors.New("keys are missing"))
	}
	if !audience.IsGUID(c.Principal) {
		errs = append(errs, fmt.Errorf("principal %q is not a GUID", c.Principal))
	}
	if len(c.Authorities) == 0 {
		errs = append(errs, errors.New("authorities are missing"))
	}
	for _, a := range c.Authorities {
		if !audience.IsAuthority(a) {
			errs = append(errs, fmt.Errorf("authority %q is not host or host:port", a))
		}
	}
	if c.MaxSpan < 0 {
		errs = append(errs, errors.New("max span is negative"))
	}
	return errors.Join(errs...)
}

// Validator decides about tokens. It is safe for concurrent use.
type Validator struct {
	config      Config
	authorities []string
	skew        time.Duration
	maxSpan     time.Duration
	cache       *cache
	metrics     *validatorMetrics
}

// NewValidator returns a validator, or every problem of config.
func NewValidator(config Config) (*Validator, error) {
	if err := config.Validate(); err != nil {
		return nil, err
	}
	v := &Validator{
		config:  config,
		skew:    config.skew(),
		maxSpan: config.maxSpan(),
		cache:   newCache(config.cacheSize()),
	}
	for _, a := range config.Authorities {
		v.authorities = append(v.authorities, audience.TrimPort(a))
	}
	entries := func() float64 {
		v.cache.sweep(time.Now())
		return float64(v.cache.len())
	}
	var err error
	v.metrics, err = newValidatorMetrics(config.Registerer, entries)
	return v, err
}

// Validate decides about one token, without the word Bearer.
//
// A refusal is a *TokenError. Any other error is a failed look-up of the key,
// wrapped: it says nothing about the token and may pass. The principal is
// shared: it must not be changed.
func (v *Validator) Validate(ctx context.Context, token string) (*Principal, error) {
	if len(token) > MaxTokenSize {
		v.metrics.refused(ReasonTooLarge)
		return nil, refuse(ReasonTooLarge, "token is larger than 8 KiB")
	}
	var room [2048]byte // keeps real tokens, about 1 KiB, off the heap
	hash := tokenHash(sha256.Sum256(append(room[:0], token...)))
	now := time.Now()
	if p := v.cache.get(hash, now); p != nil {
		v.metrics.hits.Inc()
		v.accepted(p)
		return p, nil
	}
	p, err := v.validate(ctx, token, hash, now)
	if err == nil {
		v.accepted(p)
		return p, nil
	}
	if refusal, ok := errors.AsType[*TokenError](err); ok {
		v.metrics.refused(refusal.Reason)
	} else {
		v.metrics.failures.Inc()
	}
	return nil, err
}

func (v *Validator) accepted(p *Principal) {
	v.metrics.accepted.Inc()
	if v.config.OnAccepted != nil {
		v.config.OnAccepted(*p)
	}
}

// RevokeCredential forgets the tokens that were validated with the credential
// id. The caller removes it from Keys first.
func (v *Validator) RevokeCredential(id string) {
	v.cache.revoke(func(key credentialKey) bool { return key.id == id })
}

// RevokeOrganization forgets the tokens of an organization that was disabled,
// changed or removed. The caller changes what Keys returns first.
func (v *Validator) RevokeOrganization(id int64) {
	v.cache.revoke(func(key credentialKey) bool { return key.organization == id })
}

// validate decides without the cache. What costs least is checked first, so
// that a flood of bad tokens costs no signature checks and few look-ups.
func (v *Validator) validate(ctx context.Context, raw string, hash tokenHash, now time.Time) (*Principal, error) {
	t, refusal := parseToken(raw)
	if refusal == nil {
		refusal = v.checkClaims(t, now)
	}
	if refusal != nil {
		if t != nil {
			refusal.X5T = t.x5t
		}
		return nil, refusal
	}
	for attempt := 0; ; attempt++ {
		generation := v.cache.revision()
		credentials, err := v.config.Keys.CredentialsByX5T(ctx, t.x5t)
		if err != nil {
			return nil, fmt.Errorf("look up the token's key: %w", err)
		}
		credential, refusal := v.pick(t, raw, credentials, now)
		if refusal != nil {
			refusal.X5T = t.x5t
			return nil, refusal
		}
		p := v.principal(t, credential)
		// A revocation while this went on may be of this credential: look again.
		// When revocations never pause, the token is good by what was read after
		// the last but one, and is not remembered.
		if v.cache.put(hash, p, generation) || attempt == 2 {
			return p, nil
		}
	}
}

// checkClaims checks what needs the clock and the configuration.
func (v *Validator) checkClaims(t *token, now time.Time) *TokenError {
	c := &t.claims
	if c.expires.Sub(c.notBefore) > v.maxSpan {
		return refuse(ReasonSpan, "valid for longer than the limit")
	}
	if now.After(c.expires.Add(v.skew)) {
		return refuse(ReasonExpired, "exp has passed")
	}
	if c.notBefore.After(now.Add(v.skew)) {
		return refuse(ReasonNotYetValid, "nbf is ahead")
	}
	authority := audience.TrimPort(c.audience.Authority)
	known := slices.ContainsFunc(v.authorities, func(a string) bool { return audience.Equal(a, authority) })
	if !known || !audience.Equal(c.audience.Principal, v.config.Principal) {
		return refuse(ReasonAudience, "meant for another principal or authority")
	}
	return nil
}

// pick returns the credential that verifies t and is good at now. When several
// stand behind one x5t, one good one is enough; if there is none, the refusal
// is that of the one that came furthest.
func (v *Validator) pick(t *token, raw string, credentials []Credential, now time.Time) (*Credential, *TokenError) {
	worst := refuse(ReasonKeyUnknown, "no credential has this x5t")
	var parsed *jose.JSONWebSignature
	for i := range credentials {
		c := &credentials[i]
		key, refusal := candidate(t, c)
		if refusal == nil && parsed == nil {
			var err error
			if parsed, err = jose.ParseSignedCompact(raw, []jose.SignatureAlgorithm{jose.RS256}); err != nil {
				return nil, refuse(ReasonMalformed, "not a compact JWS")
			}
		}
		if refusal == nil {
			refusal = verify(parsed, t, key)
		}
		if refusal == nil {
			if refusal = checkCredential(t, c, now); refusal == nil {
				return c, nil
			}
			refusal.Organization = c.Organization
		}
		if refusal.Reason > worst.Reason { // reasons are in the order of the checks
			worst = refusal
		}
	}
	if worst.Reason == ReasonKeyUnknown && v.config.OnUnknownKey != nil {
		v.config.OnUnknownKey(t.x5t, t.claims.issuer.realm)
	}
	return nil, worst
}

// candidate returns the key of c if c can be what signed t.
func candidate(t *token, c *Credential) (*rsa.PublicKey, *TokenError) {
	if c.Certificate == nil || certs.X5T(c.Certificate) != t.x5t {
		return nil, refuse(ReasonKeyUnknown, "no credential has this x5t")
	}
	if t.hasS256 && sha256.Sum256(c.Certificate.Raw) != t.x5tS256 {
		return nil, refuse(ReasonKeyUnknown, "x5t#S256 is of another certificate")
	}
	key, err := certs.PublicKey(c.Certificate)
	if err != nil {
		return nil, refuse(ReasonKeyUnfit, "the registered key breaks the rules for keys")
	}
	return key, nil
}

func verify(parsed *jose.JSONWebSignature, t *token, key *rsa.PublicKey) *TokenError {
	if t.signedSize != key.Size() {
		return refuse(ReasonSignature, "signature has not the size of the key")
	}
	if _, err := parsed.Verify(key); err != nil {
		return refuse(ReasonSignature, "signature does not verify")
	}
	return nil
}

// checkCredential checks what may be told only to the holder of the key.
// The skew is for tokens; credentials start and end on the relay's clock.
func checkCredential(t *token, c *Credential, now time.Time) *TokenError {
	if now.Before(c.Certificate.NotBefore) || now.Before(c.StartAt) {
		return refuse(ReasonKeyNotYetValid, "the credential or its certificate has not started")
	}
	if !now.Before(c.end()) {
		return refuse(ReasonKeyExpired, "the credential or its certificate has ended")
	}
	// CVE-2025-53786: a principal that many organizations share says nothing
	// about which of them speaks; only the key does.
	for _, realm := range []string{t.claims.issuer.realm, t.claims.nameID.realm, t.claims.audience.Realm} {
		if !audience.Equal(realm, c.Organization) {
			return refuse(ReasonRealm, "a realm is not the key's organization")
		}
	}
	if !c.Enabled {
		return refuse(ReasonOrganizationDisabled, "the organization is disabled")
	}
	return nil
}

// end returns when the credential stops being good.
func (c *Credential) end() time.Time {
	if !c.EndAt.IsZero() && c.EndAt.Before(c.Certificate.NotAfter) {
		return c.EndAt
	}
	return c.Certificate.NotAfter
}

// principal returns who signed t with c.
func (v *Validator) principal(t *token, c *Credential) *Principal {
	p := &Principal{
		OrganizationID: c.OrganizationID,
		Organization:   c.Organization,
		CredentialID:   c.ID,
		X5T:            t.x5t,
		KeySHA256:      certs.KeySHA256(c.Certificate),
		ExpiresAt:      t.claims.expires,
		GoodUntil:      t.claims.expires.Add(v.skew).Add(1), // exp plus skew itself is still good
	}
	if end := c.end(); end.Before(p.ExpiresAt) {
		p.ExpiresAt = end
	}
	if end := c.end(); end.Before(p.GoodUntil) {
		p.GoodUntil = end
	}
	return p
}
