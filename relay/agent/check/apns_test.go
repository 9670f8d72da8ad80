package check

import (
	"testing"

	"badgerelay/apns"
)

// TestNobodyIsKnownAsThat holds the probe's devices to what the relay takes for
// nobody's.
func TestNobodyIsKnownAsThat(t *testing.T) {
	one, other := newNobody(), newNobody()
	for _, token := range []string{string(one), string(other)} {
		if d, err := apns.ParseDeviceToken(token); err != nil || !d.Impossible() {
			t.Errorf("%s: %v, impossible %t", token, err, d.Impossible())
		}
	}
	if one == other {
		t.Errorf("%s was drawn twice", one)
	}
}
