package relay

import (
	"slices"
	"testing"
)

// TestActiveMailboxesOfOneHash has three mailboxes with one hash, and one with another.
func TestActiveMailboxesOfOneHash(t *testing.T) {
	var a activeMailboxes
	hash := map[string]uint64{"a": 1, "b": 1, "c": 1, "d": 2}
	key := func(name string) MailboxKey { return MailboxKey{org, name} }
	check := func(want ...string) {
		t.Helper()
		var got []string
		for m := range a.all() {
			got = append(got, m.key.Mailbox)
		}
		if slices.Sort(got); !slices.Equal(got, want) || a.len() != len(want) {
			t.Errorf("%q are active, %d by number, want %q", got, a.len(), want)
		}
		for name, h := range hash {
			if m := a.find(h, key(name)); (m != nil) != slices.Contains(want, name) || m != nil && m.key != key(name) {
				t.Errorf("looked for %q, found %v", name, m)
			}
		}
	}
	check()
	for _, name := range []string{"a", "b", "c", "d"} {
		a.add(hash[name], &mailbox{key: key(name)})
	}
	check("a", "b", "c", "d")
	if m := a.find(1, MailboxKey{org + 1, "a"}); m != nil {
		t.Errorf("found %v for another organization", m.key)
	}
	for _, step := range []struct {
		remove string
		left   []string
	}{{"b", []string{"a", "c", "d"}}, {"a", []string{"c", "d"}}, {"d", []string{"c"}}} {
		a.remove(hash[step.remove], a.find(hash[step.remove], key(step.remove)))
		check(step.left...)
	}
	a.add(1, &mailbox{key: key("a")}) // its place is free again
	check("a", "c")
}
