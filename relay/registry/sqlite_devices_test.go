package registry

import "testing"

// TestMergeDevices makes so many registrations that the index of devices is
// merged, and finds every device in it, before and after the file was opened
// anew.
func TestMergeDevices(t *testing.T) {
	const n = leastRecent + mergeStep + 7
	path := newPath(t)
	s := open(t, SQLiteConfig{Path: path})
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
			if err != nil || got.LeftMailbox != registration(i).Mailbox+from {
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
	moves(s, "b", "c")
	s.writer.drop() // as after a failure
	moves(s, "c", "d")
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
	if err != nil || !got.Created || got.LeftMailbox != "" {
		t.Errorf("got %+v, %v; want one that leaves nothing", got, err)
	}
	wantSubscriptions(t, s, 2)
}
