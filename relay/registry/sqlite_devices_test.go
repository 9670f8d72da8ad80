package registry

import (
	"slices"
	"sync"
	"testing"
)

// TestMergeDevices makes so many registrations that the index of devices is
// merged, and finds every device in it, before and after the file was opened
// anew.
func TestMergeDevices(t *testing.T) {
	const leastRecent, mergeStep = 1000, 1000
	const n = leastRecent + mergeStep + 7
	path := newPath(t)
	s := open(t, SQLiteConfig{Path: path})
	s.index.least, s.index.step = leastRecent, mergeStep
	org := addOrg(t, s)
	rs := make([]Registration, n)
	for i := range rs {
		rs[i] = registration(i)
	}
	if _, err := s.ImportSubscriptions(t.Context(), org, rs[:leastRecent]); err != nil {
		t.Fatal(err)
	}
	wantIndex(t, s, 0, leastRecent)
	if _, err := s.ImportSubscriptions(t.Context(), org, rs[leastRecent:leastRecent+1]); err != nil {
		t.Fatal(err)
	}
	wantIndex(t, s, leastRecent+1, 0)
	if _, err := s.ImportSubscriptions(t.Context(), org, rs[leastRecent+1:n-1]); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Subscribe(t.Context(), org, rs[n-1]); err != nil {
		t.Fatal(err)
	}
	wantSubscriptions(t, s, n)
	moves := func(s *SQLite, from, to string) {
		t.Helper()
		for _, i := range []int{0, leastRecent, n - 2, n - 1} { // in each part
			r := registration(i)
			r.Mailbox += to
			got, err := s.Subscribe(t.Context(), org, r)
			if err != nil || !slices.Equal(got.LeftMailboxes, []string{registration(i).Mailbox + from}) {
				t.Errorf("registration %d: got %+v, %v; want it to leave %q", i, got, err, registration(i).Mailbox+from)
			}
		}
		wantSubscriptions(t, s, n)
	}
	moves(s, "", "b")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, SQLiteConfig{Path: path})
	moves(s, "b", "c") // before it knows what is in the large table
	if err := s.fillFilter(t.Context()); err != nil {
		t.Fatal(err)
	}
	moves(s, "c", "d")
	if unknown := registration(n); s.index.merged.mayHave(deviceHash(device{unknown.App, unknown.Device})) {
		t.Error("a device that nobody has seen is looked for")
	}
	s.writer.drop() // as after a failure
	moves(s, "d", "e")
	s.index.recent = nil // as after a commit of which nobody knows what became
	moves(s, "e", "f")
}

// TestMergesBesideRegistrations has callers register and move devices while the
// index is merged and learned, and finds each device where it is.
func TestMergesBesideRegistrations(t *testing.T) {
	path := newPath(t)
	s := open(t, SQLiteConfig{Path: path})
	const leastRecent, movers = 2000, 4
	const n = leastRecent + 10
	s.index.least, s.index.step = leastRecent, 100
	org := addOrg(t, s)
	rs := make([]Registration, n)
	for i := range rs {
		rs[i] = registration(i)
	}
	if _, err := s.ImportSubscriptions(t.Context(), org, rs[:leastRecent]); err != nil {
		t.Fatal(err)
	}
	s.index.merged.end(false) // as in a file that was opened anew
	s.index.merged.complete = false
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := s.fillFilter(t.Context()); err != nil {
			t.Error(err)
		}
	})
	for m := range movers {
		wg.Go(func() {
			for i := m; i < 200; i += movers {
				was := registration(i).Mailbox
				for _, to := range []string{"x", "y"} {
					r := registration(i)
					r.Mailbox += to
					got, err := s.Subscribe(t.Context(), org, r)
					if err != nil || !slices.Equal(got.LeftMailboxes, []string{was}) {
						t.Errorf("device %d: got %+v, %v; want it to leave %q", i, got, err, was)
					}
					was = r.Mailbox
				}
			}
		})
	}
	wg.Go(func() {
		if _, err := s.ImportSubscriptions(t.Context(), org, rs[leastRecent:]); err != nil { // which merges
			t.Error(err)
		}
	})
	wg.Wait()
	wantSubscriptions(t, s, n)
	if s.index.merging || s.index.entries > 1000 {
		t.Errorf("merging %t with %d entries left", s.index.merging, s.index.entries)
	}
}

// wantIndex checks the sizes of the two parts.
func wantIndex(t *testing.T, s *SQLite, merged, logged int) {
	t.Helper()
	var m, l int
	err := s.readers.QueryRowContext(t.Context(), `SELECT (SELECT count(*) FROM devices), (SELECT count(*) FROM devices_log)`).Scan(&m, &l)
	if err != nil || m != merged || l != logged {
		t.Errorf("%d entries are merged, %d logged, %v; want %d and %d", m, l, err, merged, logged)
	}
}

// TestHashIsNoIdentity has two devices of one hash.
func TestHashIsNoIdentity(t *testing.T) {
	s := open(t, SQLiteConfig{Path: newPath(t)})
	org := addOrg(t, s)
	one, other := registration(1), registration(2)
	if _, err := s.Subscribe(t.Context(), org, one); err != nil {
		t.Fatal(err)
	}
	s.index.put(deviceHash(device{other.App, other.Device}), int64(org), []byte(one.Mailbox))
	got, err := s.Subscribe(t.Context(), org, other)
	if err != nil || !got.Created || len(got.LeftMailboxes) > 0 {
		t.Errorf("got %+v, %v; want one that leaves nothing", got, err)
	}
	wantSubscriptions(t, s, 2)
}
