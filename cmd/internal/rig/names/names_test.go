package names_test

import (
	"testing"

	"badgerelay/cmd/internal/rig/names"
)

func TestNamesDiffer(t *testing.T) {
	mailboxes, devices := map[string]bool{}, map[string]bool{}
	for i := range 20_000 {
		m := names.Mailbox(i * 73)
		if len(m) > 99 {
			t.Fatalf("mailbox %q does not fit one byte of length", m)
		}
		mailboxes[m], devices[names.Device(i).Hex()] = true, true
	}
	if len(mailboxes) != 20_000 || len(devices) != 20_000 {
		t.Errorf("%d mailboxes and %d devices of 20000 differ", len(mailboxes), len(devices))
	}
	if got, want := names.Mailbox(7), "user0000007@"+names.Organization; got != want {
		t.Errorf("mailbox 7 is %q, want %q", got, want)
	}
}

func TestEachEventChangesTheCount(t *testing.T) {
	rose := 0
	for v := uint32(1); v < 10_000; v++ {
		was, is := names.Unread(3, v-1), names.Unread(3, v)
		if was == is || is == 0 || is > 999 {
			t.Fatalf("version %d says %d after %d", v, is, was)
		}
		if is > was {
			rose++
		}
	}
	if rose < 4000 || rose > 7000 {
		t.Errorf("%d of 10000 events raise the count, want about half", rose)
	}
}
