package auth_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"badgerelay/auth"
	"badgerelay/auth/authtest"
)

func TestRevoke(t *testing.T) {
	now := time.Now()
	key := authtest.NewKey(realm, now)
	token := authtest.Good(key, realm, now)
	for name, revoke := range map[string]func(*auth.Validator){
		"credential":   func(v *auth.Validator) { v.RevokeCredential("c1") },
		"organization": func(v *auth.Validator) { v.RevokeOrganization(7) },
	} {
		v, keys := newValidator(t, nil, key.Credential("c1", 7, realm))
		for range 3 {
			if _, err := v.Validate(t.Context(), token); err != nil {
				t.Fatal(err)
			}
		}
		if got := keys.Lookups(); got != 1 {
			t.Errorf("%s: got %d look-ups, want one and then the cache", name, got)
		}
		keys.Set()
		revoke(v)
		if got := reasonOf(t, v, token); got != auth.ReasonKeyUnknown {
			t.Errorf("%s: got %v, want %v", name, got, auth.ReasonKeyUnknown)
		}
	}
}

// racingKeys revokes the credential just after it was read.
type racingKeys struct {
	*authtest.Keys
	after func()
}

func (k *racingKeys) CredentialsByX5T(ctx context.Context, x5t [20]byte) ([]auth.Credential, error) {
	found, err := k.Keys.CredentialsByX5T(ctx, x5t)
	if k.after != nil {
		k.after()
	}
	return found, err
}

func TestRevokeDuringValidation(t *testing.T) {
	now := time.Now()
	key := authtest.NewKey(realm, now)
	token := authtest.Good(key, realm, now)
	keys := &racingKeys{Keys: &authtest.Keys{}}
	keys.Set(key.Credential("c1", 7, realm))
	v, _ := newValidator(t, func(c *auth.Config) { c.Keys = keys })
	keys.after = func() {
		keys.after = nil
		keys.Set()
		v.RevokeCredential("c1")
	}
	if got := reasonOf(t, v, token); got != auth.ReasonKeyUnknown {
		t.Errorf("got %v, want %v: it was looked up again", got, auth.ReasonKeyUnknown)
	}
	// Revocations that never pause must not leave an entry either.
	keys.Set(key.Credential("c1", 7, realm))
	keys.after = func() { v.RevokeOrganization(99) }
	if _, err := v.Validate(t.Context(), token); err != nil {
		t.Fatal(err)
	}
	keys.after = nil
	keys.Set()
	if got := reasonOf(t, v, token); got != auth.ReasonKeyUnknown {
		t.Errorf("got %v, want %v: nothing may be remembered", got, auth.ReasonKeyUnknown)
	}
}

// Revocation is final whatever runs beside it: once it has returned, no call
// that starts afterwards is accepted.
func TestRevokeConcurrently(t *testing.T) {
	now := time.Now()
	key := authtest.NewKey(realm, now)
	token := authtest.Good(key, realm, now)
	v, keys := newValidator(t, nil)
	for range 20 {
		keys.Set(key.Credential("c1", 7, realm))
		var callers sync.WaitGroup
		for range 4 {
			callers.Go(func() {
				for range 5 {
					_, _ = v.Validate(t.Context(), token) // either answer is right meanwhile
				}
			})
		}
		keys.Set()
		v.RevokeCredential("c1")
		if got := reasonOf(t, v, token); got != auth.ReasonKeyUnknown {
			t.Errorf("got %v, want %v", got, auth.ReasonKeyUnknown)
		}
		callers.Wait()
		if got := reasonOf(t, v, token); got != auth.ReasonKeyUnknown {
			t.Errorf("afterwards: got %v, want %v", got, auth.ReasonKeyUnknown)
		}
	}
}
