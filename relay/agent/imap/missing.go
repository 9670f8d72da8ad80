package imap

import (
	"fmt"
	"maps"
	"slices"
	"sync"

	"badgerelay/relay/agent/source"
)

// missing knows which mailboxes lack which configured folder. It is safe for
// concurrent use. The zero value knows of none.
type missing struct {
	mu      sync.Mutex // guards folders
	folders map[string]map[string]struct{}
}

// note takes what a count says, and returns the folders that are missed for the
// first time.
func (m *missing) note(c source.Count) (first []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for folder, mailboxes := range m.folders {
		if !slices.Contains(c.Missing, folder) {
			delete(mailboxes, c.Mailbox)
		}
	}
	for _, folder := range c.Missing {
		if m.folders == nil {
			m.folders = make(map[string]map[string]struct{})
		}
		if m.folders[folder] == nil {
			m.folders[folder] = make(map[string]struct{})
			first = append(first, folder)
		}
		m.folders[folder][c.Mailbox] = struct{}{}
	}
	return first
}

// forget drops what is known of a mailbox.
func (m *missing) forget(mailbox string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, mailboxes := range m.folders {
		delete(mailboxes, mailbox)
	}
}

// notes says which folders are missing in how many mailboxes.
func (m *missing) notes() (notes []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, folder := range slices.Sorted(maps.Keys(m.folders)) {
		if n := len(m.folders[folder]); n > 0 {
			notes = append(notes, fmt.Sprintf("mailboxes without the folder %q, whose others are counted: %d", folder, n))
		}
	}
	return notes
}
