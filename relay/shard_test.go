package relay

import "testing"

// TestTwoMailboxesWithOneHash is about what happens once in a blue moon.
func TestTwoMailboxesWithOneHash(t *testing.T) {
	var sh shard
	a, b, c := MailboxKey{org, "a"}, MailboxKey{org, "b"}, MailboxKey{2, "a"}
	add := func(key MailboxKey) *mailbox { return sh.add(key, 7) }
	first, second, third := add(a), add(b), add(c)
	want := func(why string, key MailboxKey, m *mailbox) {
		t.Helper()
		if got := sh.find(7, key); got != m {
			t.Errorf("%v is %v, want %v: %s", key, got, m, why)
		}
	}
	want("it came first", a, first)
	want("it has the same hash", b, second)
	want("and so has this", c, third)
	sh.remove(first, 7)
	want("it was removed", a, nil)
	want("it stays", b, second)
	want("it stays too", c, third)
	sh.remove(third, 7)
	sh.remove(second, 7)
	want("nothing is left", b, nil)
	if sh.size() != 0 || sh.index.count != 0 {
		t.Errorf("%d mailboxes are left", sh.size())
	}
}
