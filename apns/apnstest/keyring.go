package apnstest

import (
	"slices"
	"strings"
	"sync"
	"time"
)

// keyRing is the teams' keys and topics. Safe for concurrent use.
type keyRing struct {
	mu     sync.RWMutex
	keys   map[keyName]TeamKey
	teams  map[string]bool
	topics map[string]time.Time // since when; empty: any topic
	team   map[string]*teamToken
}

type keyName struct{ team, key string }

// teamToken is when a team last changed its provider token, and which were
// accepted: for Config.TokenScopeTeam.
type teamToken struct {
	changed  time.Time
	accepted []string
}

func (k *keyRing) init(topics []string) {
	k.keys, k.teams = map[keyName]TeamKey{}, map[string]bool{}
	k.topics, k.team = map[string]time.Time{}, map[string]*teamToken{}
	for _, t := range topics {
		k.topics[t] = time.Time{}
	}
}

// AddTeamKey accepts provider tokens signed with the key from now on. A key
// with the same team and id is replaced.
func (s *Simulator) AddTeamKey(key TeamKey) {
	key.Topics = slices.Clone(key.Topics)
	s.keys.mu.Lock()
	s.keys.keys[keyName{key.TeamID, key.KeyID}] = key
	s.keys.teams[key.TeamID] = true
	s.keys.mu.Unlock()
}

// RemoveTeamKey revokes a key: tokens signed with it are refused on every
// connection that verifies one anew.
func (s *Simulator) RemoveTeamKey(teamID, keyID string) {
	s.keys.mu.Lock()
	delete(s.keys.keys, keyName{teamID, keyID})
	s.keys.mu.Unlock()
}

// AddTopic allows a bundle id from now on; connections that pushed before
// refuse it (rule T8).
func (s *Simulator) AddTopic(topic string) {
	s.keys.mu.Lock()
	if _, ok := s.keys.topics[topic]; !ok {
		s.keys.topics[topic] = time.Now()
	}
	s.keys.mu.Unlock()
}

func (k *keyRing) find(team, key string) (TeamKey, bool) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	found, ok := k.keys[keyName{team, key}]
	return found, ok
}

// allowed reports whether the bundle id may be pushed to with a key of those
// topics, and since when.
func (k *keyRing) allowed(base string, ofKey []string) (since time.Time, ok bool) {
	if len(ofKey) > 0 {
		return time.Time{}, slices.Contains(ofKey, base)
	}
	k.mu.RLock()
	defer k.mu.RUnlock()
	if len(k.topics) == 0 {
		return time.Time{}, true
	}
	since, ok = k.topics[base]
	return since, ok
}

// changeTeamToken reports whether the team may use the token now, for
// Config.TokenScopeTeam, and remembers it.
func (k *keyRing) changeTeamToken(team, token string, now time.Time) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	t := k.team[team]
	if t == nil {
		k.team[team] = &teamToken{now, []string{strings.Clone(token)}}
		return true
	}
	if slices.Contains(t.accepted, token) {
		return true
	}
	if now.Sub(t.changed) < tokenMinChangeSeconds*time.Second {
		return false
	}
	t.changed = now
	t.accepted = append(t.accepted, strings.Clone(token))
	if len(t.accepted) > 4 { // an hour's worth
		t.accepted = t.accepted[1:]
	}
	return true
}
