package lookup

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// mailbox is an organization's, and a number.
type mailbox struct {
	org  int64
	name int
}

// load has a Loader read mailboxes from a registry for a while of fake time, and
// returns the batches that it was asked for.
func load(t *testing.T, mailboxes []mailbox, registry func(batch []mailbox) error) (batches [][]mailbox, failures uint64) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		var count atomic.Uint64
		l := NewLoader(func(m mailbox) int64 { return m.org }, func(_ context.Context, batch []mailbox) error {
			batches = append(batches, slices.Clone(batch))
			return registry(batch)
		}, &Outage{Operation: "read", Logger: slog.New(slog.DiscardHandler), Random: func(n int64) int64 { return n - 1 }, Count: &count})
		l.Add(mailboxes)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		l.Run(ctx)
		failures = count.Load()
	})
	return batches, failures
}

func many(org int64, n int) []mailbox {
	all := make([]mailbox, n)
	for i := range all {
		all[i] = mailbox{org, i}
	}
	return all
}

func TestLoaderReadsInBatchesInTurn(t *testing.T) {
	batches, _ := load(t, append(many(1, 1000), many(2, 3)...), func([]mailbox) error { return nil })
	if len(batches) != 2 || len(batches[0]) != maxBatch || len(batches[1]) != 1003-maxBatch {
		t.Fatalf("%d batches, want two", len(batches))
	}
	if !slices.Contains(batches[0], mailbox{2, 2}) {
		t.Error("an organization waits behind another's thousand")
	}
}

// TestLoaderPassesAMailboxThatCannotBeRead has the registry fail whenever it is asked
// for one of a thousand.
func TestLoaderPassesAMailboxThatCannotBeRead(t *testing.T) {
	bad := mailbox{1, 77}
	read := map[mailbox]bool{}
	batches, failures := load(t, many(1, 1000), func(batch []mailbox) error {
		if slices.Contains(batch, bad) {
			return errors.New("a row is damaged")
		}
		for _, m := range batch {
			if read[m] {
				t.Errorf("%v is read twice", m)
			}
			read[m] = true
		}
		return nil
	})
	if len(read) != 999 {
		t.Errorf("%d are read, want all but one", len(read))
	}
	if alone := batches[len(batches)-1]; !slices.Equal(alone, []mailbox{bad}) {
		t.Errorf("the last one asked for is %v", alone)
	}
	if failures < 10 || failures > 60 {
		t.Errorf("%d failures in a minute: the pause is not five seconds at most", failures)
	}
}

// TestLoaderInAnOutage has the registry fail for half a minute.
func TestLoaderInAnOutage(t *testing.T) {
	var began time.Time
	var after time.Duration
	_, failures := load(t, many(1, 100), func([]mailbox) error {
		if began.IsZero() {
			began = time.Now()
		}
		if after = time.Since(began); after < 30*time.Second {
			return errors.New("it is away")
		}
		return nil
	})
	if after > 35*time.Second {
		t.Errorf("the last one was read after %v", after)
	}
	if failures > 40 {
		t.Errorf("it was asked %d times in vain", failures)
	}
}
