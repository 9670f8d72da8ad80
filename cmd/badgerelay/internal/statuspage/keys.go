package statuspage

import (
	"crypto/rand"
	"crypto/sha256"
	"slices"
	"sync"
	"time"
)

// A key is for looking at one incident; a working day's worth of forgotten tabs
// is not. Ours.
const (
	keyLifetime = time.Hour
	mostKeys    = 16 // at once; the oldest goes
)

// Keys are the keys that open the details. The zero value has none. It is safe
// for concurrent use.
type Keys struct {
	mu   sync.Mutex // guards live
	live []key      // oldest first
}

// key is remembered by its hash, so that comparing it tells nothing of it.
type key struct {
	hash [sha256.Size]byte
	end  time.Time
}

// Create makes a key.
func (k *Keys) Create() (secret string, end time.Time) {
	secret, end = rand.Text(), time.Now().Add(keyLifetime)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.live = append(k.live, key{sha256.Sum256([]byte(secret)), end})
	k.live = k.live[max(0, len(k.live)-mostKeys):]
	return secret, end
}

// opens reports whether the secret is a live key.
func (k *Keys) opens(secret string) bool {
	hash, now := sha256.Sum256([]byte(secret)), time.Now()
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.ContainsFunc(k.live, func(l key) bool { return l.hash == hash && now.Before(l.end) })
}
