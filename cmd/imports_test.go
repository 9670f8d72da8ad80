// Package cmd_test holds the rules that no single package can keep by itself.
package cmd_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// forbidden lists the edges that would turn the way of the data around. from
// and to match a package and everything below it.
var forbidden = []struct{ from, to, why string }{
	{"badgerelay/proto", "badgerelay/relay", "the contract knows nobody"},
	{"badgerelay/proto", "badgerelay/apns", "the contract knows nobody"},
	{"badgerelay/proto", "badgerelay/auth", "the contract knows nobody"},
	{"badgerelay/auth", "badgerelay/proto", "tokens are checked without knowing the contract"},
	{"badgerelay/auth", "badgerelay/relay", "tokens are checked without knowing mailboxes"},
	{"badgerelay/auth", "badgerelay/apns", "tokens are checked without knowing Apple"},
	{"badgerelay/auth$", "google.golang.org/grpc", "tokens are checked without knowing gRPC; authgrpc has the interceptors"},
	{"badgerelay/auth/certs", "badgerelay/auth$", "certificates are read and kept without knowing tokens"},
	{"badgerelay/auth/authmetadata", "badgerelay/auth$", "documents are read without knowing tokens"},
	{"badgerelay/apns", "badgerelay/relay", "apns knows no mailbox"},
	{"badgerelay/apns", "badgerelay/auth", "apns knows no organization"},
	{"badgerelay/apns", "badgerelay/proto", "apns knows no contract"},
	{"badgerelay/apns", "google.golang.org/grpc", "apns speaks to Apple only"},
	{"badgerelay/relay$", "badgerelay/proto", "the heart does not know the wire"},
	{"badgerelay/relay$", "badgerelay/auth", "the heart does not know tokens"},
	{"badgerelay/relay$", "google.golang.org/grpc", "the heart does not know the wire"},
	{"badgerelay/relay$", "badgerelay/relay/registry", "the heart declares what it needs"},
	{"badgerelay/relay$", "badgerelay/relay/ingest", "the data comes from there"},
	{"badgerelay/relay/registry", "badgerelay/proto", "the registry does not know the wire"},
	{"badgerelay/relay/registry", "badgerelay/relay/ingest", "the data comes from there"},
	{"badgerelay/relay/registry", "google.golang.org/grpc", "the registry does not know the wire"},
	{"badgerelay/relay/agent", "badgerelay/relay$", "the agent's side knows the contract only"},
	{"badgerelay/relay/agent", "badgerelay/relay/registry", "the agent's side knows the contract only"},
	{"badgerelay/relay/agent", "badgerelay/relay/ingest", "the agent's side knows the contract only"},
	{"badgerelay/relay/agent", "badgerelay/apns", "the agent's side knows the contract only"},
	{"badgerelay/relay/agent$", "badgerelay/relay/agent", "the client knows no source and no daemon"},
	{"badgerelay/relay/agent/source", "badgerelay", "what a source owes knows nobody"},
	{"badgerelay/relay/agent/imap", "badgerelay/relay/agent$", "a source knows no relay"},
	{"badgerelay/relay/agent/imap", "badgerelay/proto", "a source knows no relay"},
	{"badgerelay/relay/agent/imap", "badgerelay/auth", "a source knows no relay"},
	{"badgerelay/relay/agent/dovecot", "badgerelay/relay/agent$", "a source knows no relay"},
	{"badgerelay/relay/agent/dovecot", "badgerelay/proto", "a source knows no relay"},
	{"badgerelay/relay/agent/dovecot", "badgerelay/auth", "a source knows no relay"},
	{"badgerelay/relay/agent/ews", "badgerelay/relay/agent$", "a source knows no relay"},
	{"badgerelay/relay/agent/ews", "badgerelay/proto", "a source knows no relay"},
	{"badgerelay/relay/agent/ews", "badgerelay/auth", "a source knows no relay"},
	{"badgerelay/relay/agent/daemon", "badgerelay/relay/agent/imap", "the daemon knows no kind of mail server"},
	{"badgerelay/relay/agent/daemon", "badgerelay/relay/agent/dovecot", "the daemon knows no kind of mail server"},
	{"badgerelay/relay/agent/daemon", "badgerelay/relay/agent/ews", "the daemon knows no kind of mail server"},
	{"badgerelay/relay", "badgerelay/cmd", "nobody imports a program"},
	{"badgerelay/apns", "badgerelay/cmd", "nobody imports a program"},
	{"badgerelay/auth", "badgerelay/cmd", "nobody imports a program"},
}

// simulators may be imported by tests and by the programs named here only.
var simulators = []string{"badgerelay/apns/apnstest", "badgerelay/auth/authtest", "badgerelay/relay/agent/imap/imaptest", "badgerelay/relay/agent/ews/ewstest"}

var simulatorUsers = append([]string{
	"badgerelay/cmd/apnssim", "badgerelay/cmd/badgerelay", "badgerelay/cmd/badgebench", "badgerelay/cmd/badgeagent/internal/testbed",
	"badgerelay/cmd/internal/simulation",
}, simulators...)

func TestImportsPointTheWayOfTheData(t *testing.T) {
	edges := 0
	eachImport(t, func(file, from, to string) {
		edges++
		for _, rule := range forbidden {
			if matches(from, rule.from) && matches(to, rule.to) && !strings.HasSuffix(file, "_test.go") {
				t.Errorf("%s imports %s: %s", file, to, rule.why)
			}
		}
		for _, simulator := range simulators {
			if matches(to, simulator) && !strings.HasSuffix(file, "_test.go") && !matchesAny(from, simulatorUsers) {
				t.Errorf("%s imports %s: simulators are for tests, cmd/apnssim and the demo", file, to)
			}
		}
	})
	if edges < 100 {
		t.Errorf("only %d imports were seen; the walk misses the code", edges)
	}
}

func TestTopLevelFoldersAreTheDesigns(t *testing.T) {
	allowed := map[string]bool{
		"cmd": true, "proto": true, "relay": true, "apns": true, "auth": true, "deploy": true,
		".git": true, ".ci": true, "bin": true,
	}
	entries, err := os.ReadDir("..")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.IsDir() && !allowed[e.Name()] {
			t.Errorf("top-level folder %s is not one of the design's", e.Name())
		}
	}
}

// eachImport calls f for every import of every Go file of the module.
func eachImport(t *testing.T, f func(file, from, to string)) {
	t.Helper()
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() && path != ".." && (strings.HasPrefix(name, ".") || name == "bin" || name == "node_modules" || name == "testdata") {
			return filepath.SkipDir
		}
		if d.IsDir() || filepath.Ext(path) != ".go" {
			return nil
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel("..", path)
		if err != nil {
			return err
		}
		from := "badgerelay/" + filepath.ToSlash(filepath.Dir(rel))
		for _, spec := range parsed.Imports {
			to, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			f(filepath.ToSlash(rel), from, to)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// matches reports whether pkg is pattern or below it; with a $ at the end of
// the pattern, only the package itself.
func matches(pkg, pattern string) bool {
	if exact, ok := strings.CutSuffix(pattern, "$"); ok {
		return pkg == exact
	}
	return pkg == pattern || strings.HasPrefix(pkg, pattern+"/")
}

func matchesAny(pkg string, patterns []string) bool {
	for _, p := range patterns {
		if matches(pkg, p) {
			return true
		}
	}
	return false
}
