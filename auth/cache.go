package auth

import (
	"container/list"
	"sync"
	"time"
)

// tokenHash is the SHA-256 of a token: the cache holds no tokens.
type tokenHash [32]byte

// cache remembers validated tokens. It is safe for concurrent use.
type cache struct {
	size          int
	perCredential int

	mu         sync.Mutex // guards what follows
	generation uint64     // counts revocations
	entries    map[tokenHash]*cacheEntry
	// credentials has each credential's entries, oldest first, so that one
	// credential that mints tokens without end pushes out its own.
	credentials map[credentialKey]*list.List
}

// credentialKey names a credential; ids of different organizations may be equal.
type credentialKey struct {
	organization int64
	id           string
}

type cacheEntry struct {
	hash      tokenHash
	principal *Principal
	element   *list.Element
}

func newCache(size int) *cache {
	return &cache{
		size:          size,
		perCredential: max(size/16, 1),
		entries:       make(map[tokenHash]*cacheEntry),
		credentials:   make(map[credentialKey]*list.List),
	}
}

// get returns the principal of a token that was validated before and is still
// good at now.
func (c *cache) get(hash tokenHash, now time.Time) *Principal {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.entries[hash]
	if !ok {
		return nil
	}
	if !now.Before(e.principal.GoodUntil) {
		c.drop(e)
		return nil
	}
	return e.principal
}

// revision returns the generation to hand to put.
func (c *cache) revision() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.generation
}

// put remembers a token that was validated with credentials read at the given
// generation. It reports false, and remembers nothing, if something was
// revoked since: what was read then may be what was revoked.
func (c *cache) put(hash tokenHash, p *Principal, generation uint64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.generation != generation {
		return false
	}
	if _, known := c.entries[hash]; known || c.size <= 0 {
		return true
	}
	key := credentialKey{p.OrganizationID, p.CredentialID}
	own := c.credentials[key]
	if own != nil && (own.Len() >= c.perCredential || len(c.entries) >= c.size) {
		c.drop(own.Front().Value.(*cacheEntry))
	}
	if len(c.entries) >= c.size {
		for _, any := range c.entries { // an arbitrary one
			c.drop(any)
			break
		}
	}
	own = c.credentials[key] // the last drop may have ended the list
	if own == nil {
		own = list.New()
		c.credentials[key] = own
	}
	e := &cacheEntry{hash: hash, principal: p}
	e.element = own.PushBack(e)
	c.entries[hash] = e
	return true
}

// revoke forgets the tokens of every credential that match accepts.
func (c *cache) revoke(match func(credentialKey) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.generation++
	for key, own := range c.credentials {
		if !match(key) {
			continue
		}
		for el := own.Front(); el != nil; el = own.Front() {
			c.drop(el.Value.(*cacheEntry))
		}
	}
}

// sweep forgets what has expired.
func (c *cache) sweep(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, e := range c.entries {
		if !now.Before(e.principal.GoodUntil) {
			c.drop(e)
		}
	}
}

func (c *cache) len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.entries)
}

// drop forgets e; c.mu is held.
func (c *cache) drop(e *cacheEntry) {
	key := credentialKey{e.principal.OrganizationID, e.principal.CredentialID}
	own := c.credentials[key]
	own.Remove(e.element)
	if own.Len() == 0 {
		delete(c.credentials, key)
	}
	delete(c.entries, e.hash)
}
