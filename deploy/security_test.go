package deploy_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestSecurityNamesTests looks for every test and fuzz target that SECURITY.md
// rests on: a line whose test is gone is a wish. It has to name every fuzz target
// there is.
func TestSecurityNamesTests(t *testing.T) {
	text, err := os.ReadFile("../SECURITY.md")
	if err != nil {
		t.Fatal(err)
	}
	declared := map[string]bool{}
	function := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`)
	err = filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if path == "../bin" { // what was made, also of other versions
			return filepath.SkipDir
		}
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		source, err := os.ReadFile(path)
		for _, m := range function.FindAllSubmatch(source, -1) {
			declared[string(m[1])] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for name := range declared {
		if strings.HasPrefix(name, "Fuzz") && !regexp.MustCompile(`\b`+name+`\b`).Match(text) {
			t.Errorf("SECURITY.md does not say how long %s has run", name)
		}
	}
	named := regexp.MustCompile(`\b(?:Test|Fuzz)[A-Z]\w+`).FindAllString(string(text), -1)
	if len(named) < 30 {
		t.Errorf("%d tests named, want most of the table's lines to have one", len(named))
	}
	for _, name := range named {
		if !declared[name] {
			t.Errorf("SECURITY.md names %s, which does not exist", name)
		}
	}
}
