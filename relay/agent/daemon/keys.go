package daemon

import (
	"context"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"badgerelay/relay/agent"
	"badgerelay/relay/agent/keyring"
)

// keyringTimeout bounds the question whether a relay accepts the next key.
const keyringTimeout = 30 * time.Second

// newKeyring makes the keyring, which asks the relay through a client of its
// own: that client's token is the one in question.
func (d *Daemon) newKeyring() error {
	c := d.config.Keys
	c.Logger, c.Registerer = d.component("keyring"), d.config.Registerer
	c.Changed = func() { // Run calls it, when there are both
		d.agent.RenewToken()
		d.client.RenewToken()
	}
	c.Try = func(ctx context.Context, tokens agent.TokenSource) error {
		ctx, cancel := context.WithTimeout(ctx, keyringTimeout)
		defer cancel()
		relay := d.config.Relay
		relay.Token = tokens
		client, err := agent.NewClient(relay)
		if err != nil {
			return err
		}
		defer client.Close()
		_, err = client.ServerInfo(ctx)
		return err
	}
	var err error
	d.keys, err = keyring.New(c)
	return err
}

// watchedTokens is a token source that remembers how old its newest token is.
type watchedTokens struct {
	source agent.TokenSource

	mu      sync.Mutex // guards what follows
	token   string
	since   time.Time
	expires time.Time
}

// Token implements agent.TokenSource.
func (t *watchedTokens) Token(ctx context.Context, unlike string) (string, time.Time, error) {
	token, expires, err := t.source.Token(ctx, unlike)
	if err != nil {
		return "", time.Time{}, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if token != t.token {
		t.token, t.since, t.expires = token, time.Now(), expires
	}
	return token, expires, nil
}

func (t *watchedTokens) collectors() []prometheus.Collector {
	return []prometheus.Collector{
		gauge("token_age_seconds", "Age of the newest token; 0: none was made yet.", func() float64 {
			t.mu.Lock()
			defer t.mu.Unlock()
			if t.since.IsZero() {
				return 0
			}
			return time.Since(t.since).Seconds()
		}),
		gauge("token_expiry_timestamp_seconds", "When the newest token runs out; 0: none was made yet.", func() float64 {
			t.mu.Lock()
			defer t.mu.Unlock()
			if t.expires.IsZero() {
				return 0
			}
			return float64(t.expires.Unix())
		}),
	}
}
