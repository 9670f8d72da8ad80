package main

import (
	"bytes"
	"fmt"
	"io"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"badgerelay/cmd/internal/command"
)

// lines makes a file of n lines, one after the other.
type lines struct {
	n, at int
	line  func(i int) string
	rest  string
}

// Read implements io.Reader.
func (l *lines) Read(p []byte) (int, error) {
	for l.rest == "" {
		if l.at == l.n {
			return 0, io.EOF
		}
		l.rest = l.line(l.at)
		l.at++
	}
	n := copy(p, l.rest)
	l.rest = l.rest[n:]
	return n, nil
}

// TestImportOfBadLines imports a million lines that break a rule, each its own,
// and two that break none. These are taken, the first hundred refusals are told
// with their field, and neither the command nor the relay, both in this
// process, keeps the rest in memory. Again it renews.
func TestImportOfBadLines(t *testing.T) {
	const n, megabytes = 500_000, 160
	f := newFiles(t)
	_, app := apple(t, f)
	s := serve(t, f.base(t, app))
	want(t, command.Done, "is enrolled", "organization", "add", "fabrikam.com", "--admin", s.Admin)
	device := strings.Repeat("ab", 32)
	line := func(i int) string {
		switch {
		case i == 0 || i == n+1:
			return fmt.Sprintf("good%d@fabrikam.com,mail,%064d\n", i, i)
		case i%3 == 0:
			return fmt.Sprintf("%s,mail,%s\n", strings.Repeat("x", 257+i%7), device)
		case i%3 == 1:
			return fmt.Sprintf("user%d@fabrikam.com,mail,%x\n", i, i)
		}
		return fmt.Sprintf("user%d@fabrikam.com,nosuchapp,%s\n", i, device)
	}
	for _, counted := range []string{"2 created, 0 renewed", "0 created, 2 renewed"} {
		peak := watchMemory(t)
		var b bytes.Buffer
		code := run(t.Context(), []string{"subscription", "import", "--organization", "fabrikam.com", "--admin", s.Admin},
			process{Terminal: terminal(&lines{n: n + 2, line: line}, &b)})
		out := b.String()
		if most := peak() >> 20; most > megabytes && !raceEnabled {
			t.Errorf("the import of %d lines took %d MB of memory, want at most %d", n, most, megabytes)
		}
		if code != command.Failed || !strings.Contains(out, fmt.Sprintf("%s, %d refused.", counted, n)) ||
			!strings.Contains(out, fmt.Sprintf("refused: %d of %d subscriptions", n, n+2)) {
			t.Errorf("import = %d, %.300q; want %s and %d refused", code, out, counted, n)
		}
		for _, part := range []string{"line 2: device_token:", "line 3: app: \"nosuchapp\" is not configured at the relay\n", "line 4: mailbox:", "line 101: "} {
			if !strings.Contains(out, part) {
				t.Errorf("import does not say %q", part)
			}
		}
		if got := strings.Count(out, "\n  line "); got != 100 {
			t.Errorf("%d refusals are told, want the first 100", got)
		}
	}
}

// watchMemory returns what returns by how much the heap has grown at most since.
func watchMemory(t *testing.T) (peak func() uint64) {
	t.Helper()
	var before, now runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var most uint64 // belongs to the goroutine until it has ended
	wg.Go(func() {
		for {
			runtime.ReadMemStats(&now)
			most = max(most, now.HeapInuse)
			select {
			case <-time.After(20 * time.Millisecond):
			case <-stop:
				return
			}
		}
	})
	return func() uint64 {
		close(stop)
		wg.Wait()
		return most - min(most, before.HeapInuse)
	}
}

// TestImportSaysWhatItRefusesAndDoubts, where it stands in the file: after a heading and
// an empty line the second subscription is on the fifth.
func TestImportSaysWhatItRefusesAndDoubts(t *testing.T) {
	f := newFiles(t)
	_, app := apple(t, f)
	s := serve(t, f.base(t, app))
	want(t, command.Done, "is enrolled", "organization", "add", "fabrikam.com", "--admin", s.Admin)
	device := strings.Repeat("ab", 32)
	file := f.write(t, "devices.csv", "mailbox,app,deviceToken\nann@fabrikam.com ,mail,"+device+"\n\n\nbob@fabrikam.com,mial,"+device+"\neve,mail,"+device+"\n")
	told := "warning: line 2: mailbox \"ann@fabrikam.com \" begins or ends with a space\n" +
		"warning: line 6: mailbox eve has no domain: counts of eve@fabrikam.com don't reach it\n"
	want(t, command.Failed, told+"2 created, 0 renewed, 1 refused.\n  line 5: app: \"mial\" is not configured at the relay; did you mean mail?\nbadgerelay: refused: 1 of 3 subscriptions\n",
		"subscription", "import", "--organization", "fabrikam.com", "--admin", s.Admin, file)
	want(t, command.Failed, told+"Dry run: this would import into fabrikam.com: 0 created, 2 renewed, 1 refused.\n  line 5: app: \"mial\"", "subscription", "import", "--dry-run", "--organization", "fabrikam.com", "--admin", s.Admin, file)
	want(t, command.Misused, "line 1 has no comma", "subscription", "import", "--organization", "fabrikam.com", "--admin", s.Admin, f.write(t, "semicolons.csv", "a;b;c\n"))
	without := strings.Repeat("eve,mail,"+device+"\n", 21)
	want(t, command.Done, "warning: line 20: mailbox eve has no domain: counts of eve@fabrikam.com don't reach it\nwarning: 1 more mailbox is as odd\n",
		"subscription", "import", "--dry-run", "--organization", "fabrikam.com", "--admin", s.Admin, f.write(t, "without.csv", without))
}
