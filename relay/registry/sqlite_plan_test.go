package registry

import (
	"strings"
	"testing"
)

// TestSupersedingLooksForTheDevice has SQLite say how it finds what ended of a device
// that comes back. An organization may have a million that ended: going through them
// for each device takes a second.
func TestSupersedingLooksForTheDevice(t *testing.T) {
	s := open(t, SQLiteConfig{Path: newPath(t)})
	k := newTable(keyColumns, 1)
	k.add(int64(1), int64(2), []byte("a"), []byte("mail"), []byte("token"))
	of := statement{k: k, query: s.dialect().supersedeRemoved()}
	rows, err := s.readers.QueryContext(t.Context(), "EXPLAIN QUERY PLAN "+of.withValues(1), of.part(1, 0)...)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var plan strings.Builder
	for rows.Next() {
		var id, parent, unused int
		var detail string
		if err := rows.Scan(&id, &parent, &unused, &detail); err != nil {
			t.Fatal(err)
		}
		plan.WriteString(detail + "\n")
	}
	if err := rows.Err(); err != nil || !strings.Contains(plan.String(), "removed_subscriptions_device (organization_id=? AND device=?)") {
		t.Errorf("it finds them by\n%s%v", plan.String(), err)
	}
}
