package apns_test

import (
	"fmt"
	"strings"
	"testing"

	"badgerelay/apns"
)

// TestImpossibleDevice tells tokens of probes from those that people make up.
func TestImpossibleDevice(t *testing.T) {
	if one, other := apns.ImpossibleDevice(), apns.ImpossibleDevice(); !one.Impossible() || !other.Impossible() || one == other {
		t.Errorf("%s and %s, want two that are known as nobody's", one.Hex(), other.Hex())
	}
	for _, token := range []string{fmt.Sprintf("%064x", 0), fmt.Sprintf("%064x", 1), fmt.Sprintf("%064d", 12345678), strings.Repeat("ab", 32), strings.Repeat("ab", 100)} {
		if d, err := apns.ParseDeviceToken(token); err != nil || d.Impossible() {
			t.Errorf("%s: %v, counts as a probe's", token, err)
		}
	}
}
