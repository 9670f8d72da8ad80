package agent

import (
	"context"
	"fmt"
	"sync"
	"time"

	"badgerelay/auth"
)

// The built-in token issuer makes tokens for an agent as it is.
var _ TokenSource = (*auth.Issuer)(nil)

// tokenReserve is how long a token must still be good for a call to start
// with it: long enough for the call to arrive at a relay whose clock is ahead.
const tokenReserve = 30 * time.Second

// tokens remembers the last token of a source, so that a call costs no
// signature. It is gRPC's PerRPCCredentials and safe for concurrent use.
type tokens struct {
	source    TokenSource
	plaintext bool

	asking     chan struct{} // one slot: held by whoever asks the source
	mu         sync.Mutex    // guards what follows
	last       bearer
	bad        bool   // last is not to be used again
	generation uint64 // how many were discarded
}

// bearer is a token and when it runs out.
type bearer struct {
	token   string
	expires time.Time
}

func newTokens(source TokenSource, plaintext bool) *tokens {
	return &tokens{source: source, plaintext: plaintext, asking: make(chan struct{}, 1)}
}

// get returns a token to start a call with.
func (t *tokens) get(ctx context.Context) (bearer, error) {
	return t.other(ctx, "")
}

// renew returns a token other than old, which is about to run out.
func (t *tokens) renew(ctx context.Context, old string) (bearer, error) {
	return t.other(ctx, old)
}

// other returns the remembered token if it is good and not old, or else asks
// the source; callers that come meanwhile share the answer.
func (t *tokens) other(ctx context.Context, old string) (bearer, error) {
	if b, ok := t.remembered(); ok && b.token != old {
		return b, nil
	}
	select {
	case t.asking <- struct{}{}:
		defer func() { <-t.asking }()
	case <-ctx.Done():
		return bearer{}, ctx.Err()
	}
	b, ok := t.remembered()
	if ok && b.token != old {
		return b, nil
	}
	return t.ask(ctx, b.token)
}

// reject says that a relay refused token: it is not used again.
func (t *tokens) reject(token string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.last.token == token {
		t.bad = true
	}
}

// discard takes the remembered token out of use, whatever it is, and one that is being
// made: it may be signed with a key of before.
func (t *tokens) discard() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.bad = true
	t.generation++
}

func (t *tokens) remembered() (bearer, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.last, t.last.token != "" && !t.bad && time.Until(t.last.expires) > tokenReserve
}

func (t *tokens) ask(ctx context.Context, unlike string) (bearer, error) {
	generation := t.current()
	token, expires, err := t.source.Token(ctx, unlike)
	if err != nil {
		return bearer{}, &tokenError{err: fmt.Errorf("get token: %w", err)}
	}
	b := bearer{token: token, expires: expires}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.last, t.bad = b, generation != t.generation
	return b, nil
}

func (t *tokens) current() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.generation
}

// tokenError marks a failure of the token source, which is nobody else's fault.
type tokenError struct{ err error }

func (e *tokenError) Error() string { return e.err.Error() }
func (e *tokenError) Unwrap() error { return e.err }

// GetRequestMetadata implements gRPC's PerRPCCredentials.
func (t *tokens) GetRequestMetadata(ctx context.Context, _ ...string) (map[string]string, error) {
	b, err := t.get(ctx)
	if err != nil {
		return nil, err
	}
	return map[string]string{"authorization": "Bearer " + b.token}, nil
}

// RequireTransportSecurity implements gRPC's PerRPCCredentials: a token never
// leaves in plaintext unless the configuration says so.
func (t *tokens) RequireTransportSecurity() bool { return !t.plaintext }
