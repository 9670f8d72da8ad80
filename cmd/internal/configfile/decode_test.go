package configfile

import "testing"

func TestNearest(t *testing.T) {
	known := []string{"ca", "organization", "output", "yes"}
	for word, want := range map[string]string{
		"organisation": "organization", "ouptut": "output", "output": "output", "outposts": "", "yse": "yes",
		"x": "", "c": "", "xy": "", "cb": "ca", "": "",
	} {
		if got := Nearest(word, known); got != want {
			t.Errorf("%q: %q, want %q", word, got, want)
		}
	}
}
