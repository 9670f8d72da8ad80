package command

import (
	"testing"
	"time"
)

func TestTimes(t *testing.T) {
	for given, want := range map[string]string{
		"": "-", "2027-01-31T00:00:00Z": "2027-01-31T00:00:00Z", "2027-01-31T00:00:00+02:00": "2027-01-30T22:00:00Z",
		"2027-01-31": "2027-01-31T00:00:00Z", "2027-01-31 08:00:00": "2027-01-31T08:00:00Z",
	} {
		at, err := ParseTime("--start", given)
		if got := Time(at); err != nil || got != want {
			t.Errorf("Time(ParseTime(%q)) = %s, %v; want %s", given, got, err, want)
		}
	}
	for _, given := range []string{"tomorrow", "31.1.2027", "2027-02-30", "6h"} {
		if at, err := ParseTime("--start", given); err == nil {
			t.Errorf("ParseTime(%q) = %s, want an error", given, at)
		}
	}
	if got, want := Time(time.Date(2027, 1, 31, 1, 0, 0, 5, time.FixedZone("", 3600))), "2027-01-31T00:00:00Z"; got != want {
		t.Errorf("Time = %s, want %s", got, want)
	}
}
