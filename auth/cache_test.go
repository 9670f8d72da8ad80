package auth

import (
	"fmt"
	"testing"
	"time"
)

func hashOf(n int) (h tokenHash) {
	copy(h[:], fmt.Sprint(n))
	return h
}

func TestCacheBounds(t *testing.T) {
	now := time.Now()
	c := newCache(32) // two a credential
	end := now.Add(time.Hour)
	quiet := &Principal{OrganizationID: 1, CredentialID: "quiet", GoodUntil: end}
	busy := &Principal{OrganizationID: 2, CredentialID: "busy", GoodUntil: end}
	c.put(hashOf(0), quiet, 0)
	for n := 1; n < 1000; n++ {
		c.put(hashOf(n), busy, 0)
	}
	if got := c.len(); got != 3 {
		t.Errorf("got %d entries, want the quiet one's and two of the busy one", got)
	}
	if c.get(hashOf(0), now) != quiet || c.get(hashOf(999), now) != busy || c.get(hashOf(998), now) != busy {
		t.Error("got the wrong entries dropped")
	}
	for n := 1000; n < 2000; n++ {
		c.put(hashOf(n), &Principal{CredentialID: fmt.Sprint(n), GoodUntil: end}, 0)
	}
	if got := c.len(); got != 32 {
		t.Errorf("got %d entries of many credentials, want 32", got)
	}
	checkCache(t, c)
}

// checkCache checks that both indexes hold the same entries.
func checkCache(t *testing.T, c *cache) {
	t.Helper()
	n := 0
	for key, own := range c.credentials {
		if own.Len() == 0 {
			t.Errorf("credential %v has an empty list", key)
		}
		n += own.Len()
	}
	if n != len(c.entries) {
		t.Errorf("lists hold %d entries, the map %d", n, len(c.entries))
	}
}

func TestCacheRevoke(t *testing.T) {
	now := time.Now()
	c := newCache(1000)
	for n := range 6 {
		c.put(hashOf(n), &Principal{OrganizationID: int64(n / 3), CredentialID: fmt.Sprint(n % 3), GoodUntil: now.Add(time.Hour)}, 0)
	}
	c.revoke(func(key credentialKey) bool { return key.organization == 1 })
	c.revoke(func(key credentialKey) bool { return key.id == "2" })
	for n, want := range []bool{true, true, false, false, false, false} {
		if got := c.get(hashOf(n), now) != nil; got != want {
			t.Errorf("entry %d: got %v, want %v", n, got, want)
		}
	}
	if c.put(hashOf(9), &Principal{GoodUntil: now.Add(time.Hour)}, 1) {
		t.Error("put of an older generation: got true, want false")
	}
	if !c.put(hashOf(9), &Principal{GoodUntil: now.Add(time.Hour)}, c.revision()) || c.get(hashOf(9), now) == nil {
		t.Error("put of this generation: got nothing remembered")
	}
	c.sweep(now.Add(time.Hour))
	if c.len() != 0 {
		t.Errorf("got %d entries after their end, want none", c.len())
	}
	checkCache(t, c)
}
