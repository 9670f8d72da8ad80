package process

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"badgerelay/cmd/internal/configfile"
)

// reader is a log's reader: it may be stuck, or answer with an error.
type reader struct {
	mu   sync.Mutex // guards what follows
	text bytes.Buffer
	room int           // bytes until full; negative: endless
	full error         // what a write beyond room ends with
	gate chan struct{} // writes wait until it is closed; nil: they don't
}

func (r *reader) Write(p []byte) (int, error) {
	r.mu.Lock()
	gate := r.gate
	r.mu.Unlock()
	if gate != nil {
		<-gate
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.room >= 0 && len(p) > r.room {
		n, _ := r.text.Write(p[:r.room])
		r.room = 0
		return n, r.full
	}
	if r.room > 0 {
		r.room -= len(p)
	}
	return r.text.Write(p)
}

func (r *reader) set(f func(*reader)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f(r)
}

func (r *reader) read() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.String()
}

// daemonLog is the log of a daemon.
func daemonLog(r io.Writer) (*Output, *slog.Logger) {
	o := NewOutput(r)
	Outlive(o)
	return o, NewLogger(o, new(slog.LevelVar), configfile.Log{Format: "text"})
}

func TestLineIsOutWhenWriteReturns(t *testing.T) {
	r := &reader{room: -1}
	_, log := daemonLog(r)
	for i := range 1000 {
		log.Info("line", "n", i)
		if want := fmt.Sprintf("n=%d\n", i); !strings.HasSuffix(r.read(), want) {
			t.Fatalf("line %d is not out when its write has returned", i)
		}
	}
}

// TestMain starts what the runtime needs to deliver signals outside of every
// bubble: the first signal.Notify of a process must not come from within one.
func TestMain(m *testing.M) {
	Outlive()
	m.Run()
}

// TestStuckReaderIsNotWaitedFor writes four megabytes to a reader that does not
// read: the first line may take a moment. When it reads again, it is told what is
// missing, where it is missing.
func TestStuckReaderIsNotWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &reader{room: -1, gate: make(chan struct{})}
		o, log := daemonLog(r)
		began := time.Now()
		const lines = 4000
		for i := range lines {
			log.Info("line", "n", i, "long", strings.Repeat("x", 1000))
		}
		if took := time.Since(began); took != outputTimeout {
			t.Errorf("the lines took %v, want that nobody waits but once, for %v", took, outputTimeout)
		}
		o.Flush()
		if took := time.Since(began); took != outputTimeout+outputFarewell {
			t.Errorf("with the farewell it took %v, want %v", took, outputTimeout+outputFarewell)
		}
		dropped := int(o.dropped.Load())
		if out := lines - dropped; dropped == 0 || out*1000 < outputWaiting/2 {
			t.Errorf("%d of %d lines dropped, want the first megabyte kept", dropped, lines)
		}
		close(r.gate)
		synctest.Wait()
		if !strings.Contains(r.read(), fmt.Sprintf(" lines=%d", dropped)) {
			t.Error("the reader has caught up, and is not told of the lines that are missing at the end")
		}
		log.Info("after")
		got := strings.Split(strings.TrimSpace(r.read()), "\n")
		if want := lines - dropped + 2; len(got) != want {
			t.Fatalf("%d lines came, want %d: those kept, how many are missing, and the one after", len(got), want)
		}
		if gap := got[len(got)-2]; !strings.Contains(gap, "level=ERROR") || !strings.Contains(gap, fmt.Sprintf(" lines=%d", dropped)) {
			t.Errorf("in place of %d lines: %q", dropped, gap)
		}
		began = time.Now()
		r.set(func(r *reader) { r.gate = make(chan struct{}) })
		log.Info("stuck again")
		if took := time.Since(began); took != outputTimeout {
			t.Errorf("a line took %v, want that a reader who has caught up is waited for again, %v", took, outputTimeout)
		}
		close(r.gate)
	})
}

// TestDiskFullOfLog has a disk fill up in the midst of a line, and take lines
// again later.
func TestDiskFullOfLog(t *testing.T) {
	r := &reader{room: 300, full: syscall.ENOSPC}
	o, log := daemonLog(r)
	for range 10 {
		log.Info("this line has some seventy bytes of text, with the time of it")
	}
	dropped := o.dropped.Load()
	if dropped == 0 {
		t.Error("no line is counted as dropped")
	}
	r.set(func(r *reader) { r.room = -1 })
	log.Info("after")
	got := strings.Split(strings.TrimSpace(r.read()), "\n")
	if n := len(got); !strings.Contains(got[n-1], "msg=after") || !strings.HasPrefix(got[n-1], "time=") ||
		!strings.Contains(got[n-2], fmt.Sprintf(" lines=%v", dropped)) || !strings.HasPrefix(got[n-2], "time=") {
		t.Errorf("after %v lines that were dropped the log is:\n%s", dropped, r.read())
	}
}

// TestCommandWaitsForItsReader is about what is no daemon.
func TestCommandWaitsForItsReader(t *testing.T) {
	broken := errors.New("broken pipe")
	if n, err := NewOutput(&reader{room: 2, full: broken}).Write([]byte("line\n")); n != 2 || !errors.Is(err, broken) {
		t.Errorf("write = %d, %v, want what the reader says", n, err)
	}
}

func TestOutputIsSafeForConcurrentUse(t *testing.T) {
	r := &reader{room: -1}
	o, log := daemonLog(r)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 100 {
				log.Info("line")
				_, _ = o.Write([]byte("beside\n")) // never fails
			}
		})
	}
	wg.Wait()
	o.Flush()
	if got := strings.Count(r.read(), "\n"); got != 1600 {
		t.Errorf("%d lines, want 1600", got)
	}
}
