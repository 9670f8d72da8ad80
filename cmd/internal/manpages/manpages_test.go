package manpages

import (
	"bytes"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// written returns the pages of a small program, by name.
func written(t *testing.T, args ...string) (map[string]string, error) {
	t.Helper()
	root := &cobra.Command{Use: "small", Short: "be small", SilenceErrors: true, SilenceUsage: true}
	root.AddCommand(&cobra.Command{Use: "shrink", Short: "become smaller", Long: "Become smaller\nthan before.", Run: func(*cobra.Command, []string) {}}, Command())
	dir := t.TempDir()
	root.SetArgs(append([]string{"man", dir}, args...))
	root.SetOut(new(bytes.Buffer))
	if err := root.ExecuteContext(t.Context()); err != nil {
		return nil, err
	}
	pages := map[string]string{}
	err := fs.WalkDir(os.DirFS(dir), ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		text, err := os.ReadFile(filepath.Join(dir, path))
		pages[path] = string(text)
		return err
	})
	return pages, err
}

func TestAPageForEachCommand(t *testing.T) {
	pages, err := written(t, "--date", "2026-01-31")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"small.1", "small-shrink.1"} {
		if !strings.Contains(pages[name], ".TH") || !strings.Contains(pages[name], "Jan 2026") {
			t.Errorf("%s is\n%s", name, pages[name])
		}
	}
	if names := slices.Sorted(maps.Keys(pages)); slices.Contains(names, "small-man.1") {
		t.Errorf("pages of %v, want none of a hidden command", names)
	}
	again, err := written(t, "--date", "2026-01-31")
	if err != nil || !maps.Equal(pages, again) {
		t.Errorf("the second time it writes something else, %v", err)
	}
}

func TestDateThatIsNone(t *testing.T) {
	if _, err := written(t, "--date", "January"); err == nil || !strings.Contains(err.Error(), `--date is "January"`) {
		t.Errorf("got %v", err)
	}
}
