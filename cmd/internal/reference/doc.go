// Package reference makes the tables of the operators' reference from where each
// thing is written once: settings from the configurations' fields, metrics from a
// scrape, alerts from the rules that operators load, log messages from the list
// in this package. "make reference" writes them; tests hold the pages against them.
package reference

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"badgerelay/cmd/internal/command/commandtest"
)

// Compare holds a section of a page against text, or writes it where GOLDEN=update,
// as make reference has it. A section stands between two comments:
//
//	<!-- made by make reference: NAME -->
//	<!-- end of NAME -->
func Compare(t *testing.T, file, name, text string) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	begin, end := fmt.Sprintf("<!-- made by make reference: %s -->\n", name), fmt.Sprintf("<!-- end of %s -->\n", name)
	before, rest, begun := strings.Cut(string(data), begin)
	kept, after, ended := strings.Cut(rest, end)
	if !begun || !ended {
		t.Fatalf("%s has no section %s", file, name)
	}
	text = "\n" + strings.TrimSpace(text) + "\n\n"
	if os.Getenv("GOLDEN") == "update" {
		if err := os.WriteFile(file, []byte(before+begin+text+end+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	commandtest.Same(t, file+", section "+name+",", kept, text)
}

func table(heading []string, rows [][]string) string {
	var b strings.Builder
	row := func(cells []string) { b.WriteString("| " + strings.Join(cells, " | ") + " |\n") }
	row(heading)
	b.WriteString(strings.Repeat("|---", len(heading)) + "|\n")
	for _, cells := range rows {
		row(cells)
	}
	return b.String()
}
