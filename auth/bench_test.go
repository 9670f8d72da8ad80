package auth_test

import (
	"testing"
	"time"

	"badgerelay/auth"
	"badgerelay/auth/authtest"
)

func BenchmarkValidate(b *testing.B) {
	now := time.Now()
	key := authtest.NewKey(realm, now)
	token := authtest.Good(key, realm, now)
	for name, size := range map[string]int{"cold": -1, "cached": 0} {
		b.Run(name, func(b *testing.B) {
			v, _ := newValidator(b, func(c *auth.Config) { c.CacheSize = size }, key.Credential("c1", 7, realm))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := v.Validate(b.Context(), token); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("refused", func(b *testing.B) {
		v, _ := newValidator(b, nil)
		b.ReportAllocs()
		for b.Loop() {
			if _, err := v.Validate(b.Context(), token); err == nil {
				b.Fatal("accepted")
			}
		}
	})
}

func TestCachedAllocations(t *testing.T) {
	if raceEnabled {
		return // the race detector allocates
	}
	now := time.Now()
	key := authtest.NewKey(realm, now)
	token := authtest.Good(key, realm, now)
	v, _ := newValidator(t, nil, key.Credential("c1", 7, realm))
	got := testing.AllocsPerRun(100, func() {
		if _, err := v.Validate(t.Context(), token); err != nil {
			t.Fatal(err)
		}
	})
	if got > 0 {
		t.Errorf("got %v allocations for a cached token, want none", got)
	}
}
