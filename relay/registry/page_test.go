package registry

import (
	"slices"
	"testing"
)

func TestPageToken(t *testing.T) {
	list := []string{"subscriptions", "1", "", "false"}
	for _, position := range [][]string{{""}, {"a"}, {"a", "", "\x00\xff"}} {
		token := encodePageToken(list, position...)
		got, err := decodePageToken(token, list, len(position))
		if err != nil || !slices.Equal(got, position) {
			t.Errorf("%q: got %q, %v", position, got, err)
		}
		if _, err := decodePageToken(token, list, len(position)+1); err == nil {
			t.Errorf("%q: taken for a longer position", position)
		}
		if _, err := decodePageToken(token, []string{"subscriptions", "2", "", "false"}, len(position)); err == nil {
			t.Errorf("%q: taken for another list", position)
		}
	}
	if got, err := decodePageToken("", list, 3); got != nil || err != nil {
		t.Errorf("empty token: got %q, %v", got, err)
	}
}

func FuzzPageToken(f *testing.F) {
	list := []string{"subscriptions", "1", "", "false"}
	f.Add("", 1)
	f.Add(encodePageToken(list, "mailbox", "app", "token"), 3)
	f.Add("AAAA", 0)
	f.Add("_____________w", 3)
	f.Fuzz(func(t *testing.T, token string, n int) {
		n &= 3
		position, err := decodePageToken(token, list, n)
		if err != nil || position == nil {
			return
		}
		if len(position) != n {
			t.Fatalf("got %d strings, want %d", len(position), n)
		}
		if got := encodePageToken(list, position...); got != token {
			t.Fatalf("%q became %q", token, got)
		}
	})
}
