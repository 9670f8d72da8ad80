package reference

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// message is one or several messages of the log that belong together, and what they
// mean.
type message struct {
	texts []string
	means string
}

// Log is a table of the relay's log messages. It fails the test where one is listed
// that nothing logs, or a warning or error is logged that is not listed.
func Log(t *testing.T) string {
	t.Helper()
	logged := sources(t, "../../badgerelay", "../../internal", "../../../relay", "../../../apns", "../../../auth")
	var rows [][]string
	listed := map[string]bool{}
	for _, m := range messages {
		var quoted, levels []string
		for _, text := range m.texts {
			if len(logged[text]) == 0 {
				t.Errorf("the list explains %q, which nothing logs", text)
			}
			listed[text] = true
			levels = append(levels, strings.Join(slices.Sorted(maps.Keys(logged[text])), " or "))
			quoted = append(quoted, "`"+text+"`")
		}
		rows = append(rows, []string{strings.Join(quoted, ", "), strings.Join(slices.Compact(levels), ", "), m.means})
	}
	for _, text := range slices.Sorted(maps.Keys(logged)) {
		if (logged[text]["warn"] || logged[text]["error"]) && !listed[text] {
			t.Errorf("the relay logs %q (%v), which messages_test.go does not explain", text, slices.Sorted(maps.Keys(logged[text])))
		}
	}
	return table([]string{"message", "level", "it means, and what to do"}, rows)
}

// aside are directories whose code speaks to people on a terminal or is no part of
// the relay.
var aside = []string{"agent", "operator", "command", "simulation", "release", "child", "reference", "config", "configfile", "demo"}

// sources returns every message that the code in directories logs, with its levels.
func sources(t *testing.T, directories ...string) map[string]map[string]bool {
	t.Helper()
	found := map[string]map[string]bool{}
	for _, directory := range directories {
		err := filepath.WalkDir(directory, func(path string, entry fs.DirEntry, err error) error {
			switch name := entry.Name(); {
			case err != nil:
				return err
			case entry.IsDir() && (strings.HasSuffix(name, "test") || slices.Contains(aside, name)):
				return fs.SkipDir // simulators and suites, and the other side's library
			case strings.HasSuffix(name, ".go") && !strings.HasSuffix(name, "_test.go"):
				return readCalls(path, found)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return found
}

// readCalls enters the messages that a file logs.
func readCalls(path string, found map[string]map[string]bool) error {
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
	if err != nil {
		return err
	}
	ast.Inspect(file, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		method, ok := call.Fun.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		level, at := levelOf(method)
		if level == "" || len(call.Args) <= at {
			return true
		}
		if text, ok := constant(call.Args[at]); ok {
			if found[text] == nil {
				found[text] = map[string]bool{}
			}
			found[text][level] = true
		}
		return true
	})
	return nil
}

// levelOf is the level at which a call of slog logs, and which of its arguments is
// the message. An error may be part of another line, and stop the process.
func levelOf(method *ast.SelectorExpr) (level string, message int) {
	of, _ := method.X.(*ast.Ident)
	switch name := method.Sel.Name; {
	case name == "Info", name == "Warn", name == "Error":
		return strings.ToLower(name), 0
	case name == "Log", name == "log":
		return "varies", 2 // after a context and a level
	case name == "New" && of != nil && of.Name == "errors":
		return "in an error", 0
	}
	return "", 0
}

// constant is the text of a literal, or of several that are joined.
func constant(e ast.Expr) (string, bool) {
	switch e := e.(type) {
	case *ast.BasicLit:
		text, err := strconv.Unquote(e.Value)
		return text, e.Kind == token.STRING && err == nil
	case *ast.BinaryExpr:
		left, ok := constant(e.X)
		right, both := constant(e.Y)
		return left + right, ok && both && e.Op == token.ADD
	}
	return "", false
}
