package agentd

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"badgerelay/auth"
)

// storeInterval is how late a certificate that was published is noticed. Ours:
// reading one small file that often costs nothing.
const storeInterval = 15 * time.Second

// Tokens makes tokens with the certificate that the store calls current, and
// notices when another one is published. It is safe for concurrent use.
type Tokens struct {
	store   *auth.Store
	config  auth.IssuerConfig // without key and certificate
	renewed func()            // told that another certificate signs now

	mu      sync.Mutex // guards what follows
	issuer  *auth.Issuer
	pair    *auth.Pair
	issued  time.Time // when the last token was handed out for the first time
	last    string
	expires time.Time
	next    *auth.Slot
}

// NewTokens returns Tokens for what config says beside key and certificate. A
// store without a current certificate, or with one that can't sign, is an
// error.
func NewTokens(store *auth.Store, config auth.IssuerConfig) (*Tokens, error) {
	t := &Tokens{store: store, config: config}
	_, err := t.reread()
	return t, err
}

// Token implements agent.TokenSource.
func (t *Tokens) Token(ctx context.Context, unlike string) (string, time.Time, error) {
	if _, err := t.reread(); err != nil {
		return "", time.Time{}, err
	}
	t.mu.Lock()
	issuer := t.issuer
	t.mu.Unlock()
	token, expires, err := issuer.Token(ctx, unlike)
	if err != nil {
		return "", time.Time{}, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if token != t.last {
		t.last, t.issued, t.expires = token, time.Now(), expires
	}
	return token, expires, nil
}

// reread takes the store's current certificate. It says whether that is another
// one than before.
func (t *Tokens) reread() (changed bool, err error) {
	state, err := t.store.State()
	if err != nil {
		return false, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.next = state.Next
	if t.pair != nil && state.Current != nil && auth.Thumbprint(t.pair.Certificate) == state.Current.Thumbprint {
		return false, nil
	}
	pair, err := t.store.Load(state.Current)
	if err != nil {
		return false, fmt.Errorf("current certificate: %w", err)
	}
	config := t.config
	config.Key, config.Certificate = pair.Key, pair.Certificate
	issuer, err := auth.NewIssuer(config)
	if err != nil {
		return false, fmt.Errorf("token issuer: %w", err)
	}
	changed = t.pair != nil
	t.issuer, t.pair = issuer, pair
	return changed, nil
}

// watch looks at the store until ctx is done, and tells renewed when another
// certificate was published.
func (t *Tokens) watch(ctx context.Context, log *slog.Logger) error {
	ticker := time.NewTicker(storeInterval)
	defer ticker.Stop()
	failed := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		changed, err := t.reread()
		if err != nil && !failed {
			log.Error("certificate store can't be read; the certificate of before signs on", "error", err)
		}
		failed = err != nil
		if changed {
			log.Info("another certificate signs now", "thumbprint", t.thumbprint())
			t.renewed()
		}
	}
}

func (t *Tokens) thumbprint() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return auth.Thumbprint(t.pair.Certificate)
}

// collectors are the metrics of tokens and certificates.
func (t *Tokens) collectors() []prometheus.Collector {
	held := func(f func() float64) func() float64 {
		return func() float64 {
			t.mu.Lock()
			defer t.mu.Unlock()
			return f()
		}
	}
	since := func(at time.Time) float64 {
		if at.IsZero() {
			return 0
		}
		return time.Since(at).Seconds()
	}
	return []prometheus.Collector{
		gauge("token_age_seconds", "Age of the newest token; 0: none was made yet.", held(func() float64 { return since(t.issued) })),
		gauge("token_expiry_timestamp_seconds", "When the newest token runs out; 0: none was made yet.", held(func() float64 {
			return unixOrZero(t.expires)
		})),
		gauge("certificate_age_seconds", "Age of the certificate that signs.", held(func() float64 { return since(t.pair.Certificate.NotBefore) })),
		gauge("certificate_expiry_timestamp_seconds", "When the certificate that signs ends.", held(func() float64 {
			return unixOrZero(t.pair.Certificate.NotAfter)
		})),
		gauge("certificate_next_effective_timestamp_seconds", "When the staged certificate is to be published; 0: none is staged.", held(func() float64 {
			if t.next == nil {
				return 0
			}
			return unixOrZero(t.next.EffectiveAt)
		})),
	}
}

func unixOrZero(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.Unix())
}
