package diagnosis

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"
)

// TestDocumentsNameEveryCode compares the codes with the tables that tell people what to do
// about each: every code is in one, and nothing is that is no code.
func TestDocumentsNameEveryCode(t *testing.T) {
	section := regexp.MustCompile(`(?s)\n##+ (A badge is wrong|When a badge is wrong)\n.*?\n##`)
	row := regexp.MustCompile("(?m)^\\| [^|`][^|]* \\| (`[a-z_]+`[^|]*) \\|")
	word := regexp.MustCompile("`([a-z_]+)`")
	all := codes(t)
	var named []Code
	for _, document := range []string{"operate.md", "mailbox.md"} {
		text, err := os.ReadFile(filepath.Join("..", "..", "..", "deploy", document))
		if err != nil {
			t.Fatal(err)
		}
		found := row.FindAllSubmatch(section.Find(text), -1)
		if len(found) < 9 {
			t.Errorf("%s: %d rows are found; want all", document, len(found))
		}
		for _, one := range found {
			for _, code := range word.FindAllSubmatch(one[1], -1) {
				named = append(named, Code(code[1]))
				if !slices.Contains(all, Code(code[1])) {
					t.Errorf("%s has %s, which is no code", document, code[1])
				}
			}
		}
	}
	for _, code := range all {
		if !slices.Contains(named, code) {
			t.Errorf("%s is in neither document", code)
		}
	}
}
