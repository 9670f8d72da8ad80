package command

import (
	"io"
	"strings"
	"testing"
	"time"
)

func TestText(t *testing.T) {
	for in, want := range map[string]string{"": "", "a": "a", "\xef\xbb\xbfa=1\n": "a=1\n", "\xef\xbb\xbf": "", "\xef\xbba": "\xef\xbba"} {
		text, empty, err := Text(strings.NewReader(in), "f")
		if err != nil {
			t.Fatalf("%q: %v", in, err)
		}
		if got, err := io.ReadAll(text); string(got) != want || err != nil || empty != (in == "") {
			t.Errorf("%q is %q, empty %t, %v; want %q", in, got, empty, err, want)
		}
	}
	for _, in := range []string{"\xff\xfea\x00", "\xfe\xff\x00a"} {
		if _, _, err := Text(strings.NewReader(in), "f"); err == nil || err.Error() != "f is text in UTF-16: save it as UTF-8" {
			t.Errorf("%q: %v", in, err)
		}
	}
}

func TestCounted(t *testing.T) {
	for n, want := range map[int]string{0: "0 columns", 1: "1 column", 2: "2 columns"} {
		if got := Counted(n, "column", "columns"); got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
}

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
