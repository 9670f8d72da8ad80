package process

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// A failure that goes on is said once a minute, with how often it happened
// since, and at once when its cause changes. Failures that differ are few; beyond
// so many kinds, and at debug level, where anybody outside can cause lines, each
// place in the code has its share of a second. Ours.
const (
	repeatInterval = time.Minute
	mostRepeats    = 256
	mostASecond    = 20
	mostCauses     = 4 // of one failure, each of which is said at once
)

// repeats passes records on, save warnings and errors with an "error" that were
// said less than repeatInterval ago, and what is beyond mostASecond: those are
// counted. What makes two failures the same is everything but the error and
// numbers; an error with another text, numbers aside, is another cause.
type repeats struct {
	next  slog.Handler
	known *repeated
	with  string // what WithAttrs has added, for the key
}

// repeated is what all handlers of a logger share.
type repeated struct {
	mu     sync.Mutex // guards what follows
	kinds  map[string]*repeatedKind
	shares map[uintptr]*share // by place in the code; loggers of libraries have none, and share one
}

// share is what one place in the code has said in a second.
type share struct {
	second  int64 // since 1970
	said    int
	leftOut int // lines, since the last that was said
}

// repeatedKind is one failure that has been said.
type repeatedKind struct {
	said   time.Time
	count  int         // since then
	causes []string    // of it that were said in this minute
	cause  string      // the last one
	last   slog.Record // of those counted
	next   slog.Handler
}

func newRepeats(next slog.Handler) slog.Handler {
	return &repeats{next: next, known: &repeated{kinds: map[string]*repeatedKind{}, shares: map[uintptr]*share{}}}
}

func (h *repeats) Enabled(ctx context.Context, l slog.Level) bool { return h.next.Enabled(ctx, l) }

func (h *repeats) WithAttrs(attrs []slog.Attr) slog.Handler {
	with := h.with
	for _, a := range attrs {
		with += identity(a)
	}
	return &repeats{h.next.WithAttrs(attrs), h.known, with}
}

func (h *repeats) WithGroup(name string) slog.Handler {
	return &repeats{h.next.WithGroup(name), h.known, h.with + name + "."}
}

func (h *repeats) Handle(ctx context.Context, r slog.Record) error {
	for _, k := range h.known.due(r.Time) {
		k.last.AddAttrs(slog.Int("repeated", k.count))
		if err := k.next.Handle(ctx, k.last); err != nil {
			return err
		}
	}
	key, cause, failure := h.key(&r)
	if failure && h.known.count(key, cause, r, h.next) {
		return nil
	}
	if r.Level < slog.LevelInfo || failure && !h.known.knows(key) {
		leftOut, say := h.known.share(&r)
		if !say {
			return nil
		}
		if leftOut > 0 {
			r = r.Clone()
			r.AddAttrs(slog.Int("left_out", leftOut))
		}
	}
	return h.next.Handle(ctx, r)
}

// key returns what two records of one failure have in common, and its cause.
func (h *repeats) key(r *slog.Record) (key, cause string, failure bool) {
	if r.Level < slog.LevelWarn {
		return "", "", false
	}
	var b strings.Builder
	b.WriteString(r.Message + "\x00" + h.with)
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "error" {
			failure, cause = true, withoutNumbers(a.Value.String())
		}
		b.WriteString(identity(a))
		return true
	})
	return b.String(), cause, failure
}

// withoutNumbers is an error's text without what differs from one time to the
// next: ports, durations, ids.
func withoutNumbers(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' {
			return -1
		}
		return r
	}, s)
}

// identity returns the part of a key that an attribute makes.
func identity(a slog.Attr) string {
	if v := a.Value.Resolve(); a.Key != "error" && v.Kind() == slog.KindString {
		return a.Key + "=" + v.String() + "\x00"
	}
	return ""
}

// count reports whether the failure was said lately, with the same cause or with
// enough others; then it is counted.
func (k *repeated) count(key, cause string, r slog.Record, next slog.Handler) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	kind := k.kinds[key]
	if kind == nil {
		if len(k.kinds) < mostRepeats {
			k.kinds[key] = &repeatedKind{said: r.Time, causes: []string{cause}, cause: cause}
		}
		return false
	}
	kind.cause = cause
	if len(kind.causes) < mostCauses && !slices.Contains(kind.causes, cause) {
		kind.causes = append(kind.causes, cause)
		return false
	}
	kind.count++
	kind.last, kind.next = r.Clone(), next
	return true
}

// knows reports whether the failure is one of those that are counted.
func (k *repeated) knows(key string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.kinds[key] != nil
}

// share reports whether the record is within its place's share, and how many
// were not before it.
func (k *repeated) share(r *slog.Record) (leftOut int, say bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	s := k.shares[r.PC]
	if s == nil {
		s = &share{}
		k.shares[r.PC] = s
	}
	if second := r.Time.Unix(); second != s.second {
		s.second, s.said = second, 0
	}
	if s.said == mostASecond {
		s.leftOut++
		return 0, false
	}
	s.said++
	leftOut, s.leftOut = s.leftOut, 0
	return leftOut, true
}

// due takes out the failures whose minute is over, and returns those of them
// that were counted. It is asked before every record: a log that is silent has
// nobody who waits for it.
func (k *repeated) due(now time.Time) []*repeatedKind {
	k.mu.Lock()
	defer k.mu.Unlock()
	var due []*repeatedKind
	for key, kind := range k.kinds {
		if now.Sub(kind.said) < repeatInterval {
			continue
		}
		delete(k.kinds, key)
		if kind.count > 0 {
			due = append(due, kind)
			k.kinds[key] = &repeatedKind{said: now, causes: []string{kind.cause}, cause: kind.cause} // said again just now
		}
	}
	return due
}

// OnceAMinute is for logging what anybody outside can cause again and again,
// and in words that differ. The zero value is due. It is safe for concurrent
// use.
type OnceAMinute struct {
	last atomic.Int64 // when it was due, in nanoseconds since 1970
}

// Due reports whether it was not due in the last minute.
func (o *OnceAMinute) Due() bool {
	now, last := time.Now().UnixNano(), o.last.Load()
	return now-last >= int64(repeatInterval) && o.last.CompareAndSwap(last, now)
}
