// Package keyring signs a running agent's tokens and rolls its key over while
// streams are open: from the effective date of a staged certificate on it asks
// the relay whether it knows the new key, and only then changes over, so that
// a relay that was not told in time costs nothing. When the overlap is over it
// deletes the previous key. It also publishes the certificates as a metadata
// document, from which a relay learns of the next one.
//
// It makes no certificates: that is the administrator's, cert ensure and cert
// stage.
package keyring

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"badgerelay/auth"
	"badgerelay/auth/certs"
	"badgerelay/relay/agent"

	"github.com/prometheus/client_golang/prometheus"
)

// Ours: a certificate that a person publishes by hand is in use at once, for
// people; and a relay that does not know the next key is asked less and less.
const (
	lookInterval = 10 * time.Second
	againMin     = time.Minute
	againMax     = 15 * time.Minute
)

// Config of a Keyring. All but Registerer is required.
type Config struct {
	// Store has the certificates.
	Store *certs.Store
	// Issuer returns what signs with a pair.
	Issuer func(*certs.Pair) (*auth.Issuer, error)
	// Try asks the relay whether it accepts tokens of a source; its error is
	// one that agent.Explain reads.
	Try func(ctx context.Context, tokens agent.TokenSource) error
	// Changed is told that another key signs from now on: have fresh tokens
	// handed in. It is called from Run's goroutine.
	Changed func()
	// Organization is the realm of the metadata document.
	Organization string
	// Logger gets what people should know.
	Logger *slog.Logger
	// Registerer gets the metrics. Nil registers none.
	Registerer prometheus.Registerer
}

// Keyring is an agent's token source. All methods are safe for concurrent use.
type Keyring struct {
	config Config

	mu      sync.Mutex // guards what follows
	signing string     // thumbprint of what signs
	pair    *certs.Pair
	issuer  *auth.Issuer

	// What follows belongs to Run's goroutine.
	wanted string        // thumbprint of what shall sign and does not yet
	wait   time.Duration // before the relay is asked again
	again  time.Time
}

// New returns a keyring that signs with the current certificate. Without one
// it is certs.ErrNoCertificate.
func New(config Config) (*Keyring, error) {
	k := &Keyring{config: config}
	state, err := config.Store.State()
	if err != nil {
		return nil, err
	}
	if err := k.use(state.Current); err != nil {
		return nil, err
	}
	if config.Registerer == nil {
		return k, nil
	}
	return k, config.Registerer.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "certificate_expiry_timestamp_seconds", Help: "When the certificate whose key signs tokens ends.",
	}, func() float64 { return float64(k.Certificate().NotAfter.Unix()) }))
}

// Token implements agent.TokenSource.
func (k *Keyring) Token(ctx context.Context, unlike string) (string, time.Time, error) {
	k.mu.Lock()
	issuer := k.issuer
	k.mu.Unlock()
	return issuer.Token(ctx, unlike)
}

// Run looks after the certificates until ctx is done, and returns nil then.
func (k *Keyring) Run(ctx context.Context) error {
	ticker := time.NewTicker(lookInterval)
	defer ticker.Stop()
	for {
		if err := k.turn(ctx, time.Now()); err != nil && ctx.Err() == nil {
			k.config.Logger.Warn("certificates not looked after", "error", err)
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// turn changes over to what shall sign now, or else retires what has done so.
func (k *Keyring) turn(ctx context.Context, now time.Time) error {
	state, err := k.config.Store.State()
	if err != nil {
		return err
	}
	target := state.Current
	// In an overlap the previous one may be all that the relay knows; publishing would delete it.
	if state.Next != nil && !now.Before(state.Next.EffectiveAt) && !state.Previous.InOverlap(now) {
		target = state.Next
	}
	if target == nil {
		return certs.ErrNoCertificate
	}
	if target.Thumbprint == k.Thumbprint() {
		if k.wanted != "" {
			k.wanted, k.wait, k.again = "", againMin, now
		}
		return k.retire(ctx, &state, now)
	}
	if k.wanted != target.Thumbprint {
		k.wanted, k.wait, k.again = target.Thumbprint, againMin, now
	}
	if now.Before(k.again) {
		return nil
	}
	k.again, k.wait = now.Add(k.wait), min(2*k.wait, againMax)
	return k.changeOver(ctx, &state, target)
}

// changeOver makes target sign if the relay accepts its key, or if there is
// nothing better.
func (k *Keyring) changeOver(ctx context.Context, state *certs.State, target *certs.Slot) error {
	pair, err := k.config.Store.Load(target)
	if err != nil {
		return err
	}
	issuer, err := k.config.Issuer(pair)
	if err != nil {
		return err
	}
	if err := k.try(ctx, issuer); err != nil && k.lasts(state) {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if agent.Explain(err).Kind == agent.FailureToken {
			k.config.Logger.Error("the relay does not accept the next certificate; the one of before goes on signing",
				"thumbprint", target.Thumbprint, "again", k.wait, "error", err)
			return nil
		}
		return fmt.Errorf("ask the relay about the next certificate: %w", err)
	}
	if target == state.Next {
		if _, err := k.config.Store.Publish(false); err != nil && !errors.Is(err, certs.ErrNoCertificate) {
			return err
		}
	}
	k.set(pair, issuer)
	k.config.Logger.Info("certificate rolled over", "thumbprint", target.Thumbprint)
	k.config.Changed()
	return nil
}

// try asks the relay whether it accepts tokens of a source. One that refuses for what it
// looks at afterwards has accepted the token.
func (k *Keyring) try(ctx context.Context, tokens agent.TokenSource) error {
	err := k.config.Try(ctx, tokens)
	if err == nil {
		return nil
	}
	switch failure := agent.Explain(err); failure.Reason {
	case "LIMIT_REACHED", "PRODUCT_TOO_OLD":
		return nil
	}
	return err
}

// lasts reports whether what signs is still of use: the store has it, and it
// has not ended.
func (k *Keyring) lasts(state *certs.State) bool {
	for _, slot := range []*certs.Slot{state.Current, state.Previous} {
		if slot != nil && slot.Thumbprint == k.Thumbprint() {
			return time.Now().Before(slot.NotAfter)
		}
	}
	return false
}

// retire deletes the previous key when its overlap is over, and the relay accepts what
// signs: an agent that has started anew signs with the current key without having asked,
// and the previous one may be all that the relay knows.
func (k *Keyring) retire(ctx context.Context, state *certs.State, now time.Time) error {
	p := state.Previous
	if p == nil || p.RetireAt.IsZero() || now.Before(p.RetireAt) || now.Before(k.again) {
		return nil
	}
	if err := k.try(ctx, k); err != nil {
		k.wait = max(k.wait, againMin)
		k.again, k.wait = now.Add(k.wait), min(2*k.wait, againMax)
		return fmt.Errorf("the previous certificate is kept until the relay accepts the current one: %w", err)
	}
	if err := k.config.Store.ClearPrevious(false); err != nil {
		return fmt.Errorf("retire certificate: %w", err)
	}
	k.config.Logger.Info("previous certificate retired", "thumbprint", p.Thumbprint)
	return nil
}

func (k *Keyring) use(slot *certs.Slot) error {
	pair, err := k.config.Store.Load(slot)
	if err != nil {
		return err
	}
	issuer, err := k.config.Issuer(pair)
	if err != nil {
		return err
	}
	k.set(pair, issuer)
	return nil
}

func (k *Keyring) set(pair *certs.Pair, issuer *auth.Issuer) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.signing, k.pair, k.issuer = certs.Thumbprint(pair.Certificate), pair, issuer
}

// Thumbprint returns that of the certificate whose key signs.
func (k *Keyring) Thumbprint() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.signing
}
