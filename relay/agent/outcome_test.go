package agent

import (
	"strings"
	"testing"
)

func TestDeviceTokenIsHexadecimalOfSomeLength(t *testing.T) {
	for token, want := range map[DeviceToken]bool{
		"": false, "ab": false, "zz": false,
		DeviceToken(strings.Repeat("a", 62)): false, DeviceToken(strings.Repeat("a", 64)): true, DeviceToken(strings.Repeat("F", 64)): true,
		DeviceToken(strings.Repeat("a", 65)): false, DeviceToken(strings.Repeat("g", 64)): false,
		DeviceToken(strings.Repeat("a", 200)): true, DeviceToken(strings.Repeat("a", 202)): false,
	} {
		if token.Valid() != want {
			t.Errorf("%d digits, %.4s...: %t, want %t", len(token), string(token), !want, want)
		}
	}
}
