package config

import (
	"os"
	"path/filepath"
	"testing"
)

func TestUnset(t *testing.T) {
	for text, want := range map[string]bool{
		"# imap: {address: \"127.0.0.1:143\"}\n": true,
		"":                                       false, // the disk was full, perhaps
		"local: {socket: /run/x}\n":              false,
		"lcoal: {socket: /run/x}\n":              false, // a mistake is to be told
		"local: {\n":                             false,
	} {
		file := filepath.Join(t.TempDir(), "badgeagent.yaml")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := Unset(file); got != want {
			t.Errorf("Unset(%q) = %t, want %t", text, got, want)
		}
	}
	if Unset(filepath.Join(t.TempDir(), "none.yaml")) {
		t.Error("a file that is not there is unset")
	}
}
