package imap

import (
	"fmt"
	"strings"
	"sync"
	"time"
)

// lacks says what the server lacks of the configured way to watch, so that m is
// taken instead; empty: nothing. With auto that is any way at all to push changes.
func lacks(configured string, m mode, interval time.Duration) string {
	if configured == m.String() || configured == "off" || configured == "auto" && m != modePoll {
		return ""
	}
	if m != modePoll {
		return fmt.Sprintf("the mail server has no %s; mailboxes are watched by %s instead", strings.ToUpper(configured), strings.ToUpper(m.String()))
	}
	return fmt.Sprintf("the mail server has neither NOTIFY nor IDLE; mailboxes are looked at each %v", interval)
}

// fallback knows why mailboxes are watched in another way than configured. It is
// safe for concurrent use. The zero value says that they are not.
type fallback struct {
	mu   sync.Mutex // guards what follows
	text string
	told map[string]struct{}
}

// note takes what the newest connection lacks, and says whether it is to be told.
func (f *fallback) note(text string) (first bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.text = text
	if _, told := f.told[text]; told || text == "" {
		return false
	}
	if f.told == nil {
		f.told = make(map[string]struct{})
	}
	f.told[text] = struct{}{}
	return true
}

// now returns what the newest connection lacks; empty: nothing.
func (f *fallback) now() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.text
}
