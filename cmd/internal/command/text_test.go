package command

import (
	"io"
	"strings"
	"testing"
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
