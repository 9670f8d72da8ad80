// Package cmd_test holds the rules that no single package can keep by itself.
package cmd_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// edges are all imports that packages of the module have of each other, tests apart.
// A new one is written down here, where one sees whether it points the way of the data.
// Simulators are for tests and for the programs that say so here.
var edges = map[string][]string{
	// apns knows no mailbox, no organization and no contract.
	"apns/apnstest":         {"apns"},
	"apns/apnstest/console": {"apns", "apns/apnstest"},

	// Tokens are checked without knowing mailboxes, Apple or the contract; certificates
	// and documents without knowing tokens. authgrpc alone knows gRPC.
	"auth":              {"auth/audience", "auth/certs", "auth/internal/strict"},
	"auth/authgrpc":     {"auth"},
	"auth/authmetadata": {"auth/audience", "auth/certs", "auth/internal/strict"},
	"auth/authtest":     {"auth", "auth/certs"},
	"auth/certs":        {"auth/audience", "auth/internal/strict"},

	// The heart knows neither the wire nor tokens nor SQL, and declares what it needs of
	// the registry. dispatch, lookup and fair know no mailbox.
	"relay":                       {"apns", "relay/dispatch", "relay/fair", "relay/lookup"},
	"relay/dispatch":              {"apns", "relay/fair"},
	"relay/lookup":                {"relay/fair"},
	"relay/ingest":                {"auth", "auth/authgrpc", "proto/badgerelay/v1", "relay", "relay/internal/service", "relay/registry"},
	"relay/admin":                 {"apns", "proto/badgerelay/v1", "relay", "relay/ingest", "relay/internal/service", "relay/registry"},
	"relay/internal/service":      {"apns", "auth", "proto/badgerelay/v1", "relay", "relay/registry"},
	"relay/registry":              {"apns", "auth", "relay"},
	"relay/registry/memory":       {"apns", "auth", "relay", "relay/registry"},
	"relay/registry/registrytest": {"apns", "auth/authtest", "relay", "relay/registry"},

	// The agent's side knows the contract only; its client knows no source and no daemon,
	// a source no relay, and the daemon no kind of mail server.
	"relay/agent":               {"auth", "proto/badgerelay/v1", "relay/agent/internal/backoff"},
	"relay/agent/backend":       {"relay/agent"},
	"relay/agent/check":         {"relay/agent", "relay/agent/daemon"},
	"relay/agent/daemon":        {"relay/agent", "relay/agent/internal/backoff", "relay/agent/keyring", "relay/agent/source"},
	"relay/agent/diagnosis":     {"proto/badgerelay/v1", "relay/agent/backend", "relay/agent/daemon"},
	"relay/agent/dovecot":       {"relay/agent/source"},
	"relay/agent/enrolment":     {"auth", "auth/authmetadata", "auth/certs"},
	"relay/agent/ews":           {"relay/agent/internal/backoff", "relay/agent/source"},
	"relay/agent/imap":          {"relay/agent/internal/backoff", "relay/agent/source"},
	"relay/agent/ews/ewstest":   {"auth/authtest", "relay/freeport"},
	"relay/agent/imap/imaptest": {"relay/freeport"},
	"relay/agent/keyring":       {"auth", "auth/authmetadata", "auth/certs", "relay/agent"},

	// Nobody imports a program.
	"cmd/apnssim": {
		"apns", "apns/apnstest", "apns/apnstest/console", "cmd/internal/command", "cmd/internal/configfile",
		"cmd/internal/manpages", "cmd/internal/process",
	},
	"cmd/badgeagent": {
		"auth", "auth/authmetadata", "auth/certs", "cmd/badgeagent/internal/config", "cmd/badgeagent/internal/serve",
		"cmd/internal/command", "cmd/internal/configfile", "cmd/internal/explanation", "cmd/internal/manpages", "cmd/internal/process",
		"relay/agent", "relay/agent/backend", "relay/agent/check", "relay/agent/daemon", "relay/agent/diagnosis", "relay/agent/enrolment", "relay/agent/ews",
		"relay/agent/imap", "relay/agent/keyring", "relay/agent/source",
	},
	"cmd/badgeagent/internal/config": {"cmd/internal/configfile", "relay/agent", "relay/agent/ews", "relay/agent/imap"},
	"cmd/badgeagent/internal/serve": {
		"cmd/badgeagent/internal/config", "cmd/internal/configfile", "cmd/internal/process", "relay/agent",
		"relay/agent/backend", "relay/agent/daemon", "relay/agent/diagnosis", "relay/agent/dovecot", "relay/agent/ews", "relay/agent/imap", "relay/agent/keyring",
		"relay/agent/source",
	},
	"cmd/badgebench": {
		"apns", "cmd/badgebench/internal/load", "cmd/badgebench/internal/pusher", "cmd/badgebench/internal/report",
		"cmd/internal/child", "cmd/internal/command", "cmd/internal/manpages", "cmd/internal/rig", "cmd/internal/rig/apple",
		"cmd/internal/rig/names", "proto/badgerelay/v1",
	},
	"cmd/badgebench/internal/load":   {"auth", "cmd/internal/rig", "cmd/internal/rig/names", "proto/badgerelay/v1", "relay/agent"},
	"cmd/badgebench/internal/pusher": {"apns", "cmd/internal/child", "cmd/internal/configfile", "cmd/internal/rig/names"},
	"cmd/badgebench/internal/report": {"cmd/internal/buildinfo"},
	"cmd/badgerelay": {
		"cmd/badgerelay/internal/config", "cmd/badgerelay/internal/daemon", "cmd/badgerelay/internal/demo", "cmd/badgerelay/internal/operator",
		"cmd/internal/command", "cmd/internal/configfile", "cmd/internal/manpages", "cmd/internal/process",
		"relay/registry",
	},
	"cmd/badgerelay/internal/config": {"apns", "auth/audience", "cmd/internal/configfile", "relay/registry"},
	"cmd/badgerelay/internal/daemon": {
		"apns", "auth", "auth/authmetadata", "auth/certs", "cmd/badgerelay/internal/config", "cmd/badgerelay/internal/statuspage",
		"cmd/internal/configfile", "cmd/internal/process", "proto/badgerelay/v1", "relay", "relay/admin", "relay/ingest",
		"relay/registry",
	},
	"cmd/badgerelay/internal/demo": {
		"apns", "apns/apnstest", "apns/apnstest/console", "auth", "auth/authtest", "cmd/badgerelay/internal/config", "cmd/badgerelay/internal/daemon",
		"cmd/internal/process", "proto/badgerelay/v1", "relay/agent",
	},
	"cmd/badgerelay/internal/operator": {
		"apns", "auth/certs", "cmd/badgerelay/internal/config", "cmd/internal/command", "cmd/internal/configfile", "cmd/internal/explanation",
		"proto/badgerelay/v1", "relay/agent/diagnosis", "relay/registry", // the reasons of removal
	},
	"cmd/badgerelay/internal/statuspage": {"proto/badgerelay/v1"},
	"cmd/internal/command":               {"cmd/internal/buildinfo", "cmd/internal/configfile", "cmd/internal/process"},
	"cmd/internal/explanation":           {"cmd/internal/command", "relay/agent/daemon", "relay/agent/diagnosis"},
	"cmd/internal/manpages":              {"cmd/internal/buildinfo", "cmd/internal/command"},
	"cmd/internal/process":               {"cmd/internal/configfile"},
	"cmd/internal/reference":             {"cmd/internal/command/commandtest"},
	"cmd/internal/rig": {
		"auth", "auth/authtest", "auth/certs", "cmd/internal/child", "cmd/internal/configfile", "cmd/internal/rig/apple", "cmd/internal/rig/clock",
		"cmd/internal/rig/names", "cmd/internal/rig/wire", "relay/freeport", "relay/registry/postgrestest",
	},
	"cmd/internal/rig/apple": {"apns/apnstest", "cmd/internal/child", "cmd/internal/rig/names"},
	"cmd/internal/rig/names": {"apns"},
	"cmd/internal/simulation": {
		"apns", "apns/apnstest", "auth", "auth/authtest", "proto/badgerelay/v1", "relay", "relay/agent", "relay/ingest", "relay/registry",
		"relay/registry/memory",
	},
	"cmd/internal/testbed": {
		"auth/authmetadata", "auth/authtest", "cmd/internal/buildinfo", "cmd/internal/child", "cmd/internal/command", "cmd/internal/rig", "cmd/internal/rig/apple",
		"cmd/internal/testbed/chaos", "cmd/internal/testbed/site", "relay/agent/ews/ewstest", "relay/freeport",
		"relay/agent/imap/imaptest",
	},
	"cmd/internal/testbed/chaos": {
		"apns/apnstest", "cmd/internal/rig", "cmd/internal/rig/apple", "cmd/internal/rig/names", "cmd/internal/rig/wire",
		"cmd/internal/testbed/site",
	},
	"cmd/internal/testbed/site": {"auth", "auth/certs", "cmd/internal/child", "cmd/internal/rig", "cmd/internal/rig/names", "relay/agent"},
}

// outside says who may import what is not the module's and would be easy to reach for.
// A name stands for the package and everything below it.
var outside = map[string][]string{
	"google.golang.org/grpc": {"proto", "auth/authgrpc", "relay/ingest", "relay/admin", "relay/internal/service", "relay/agent", "cmd"},
	"database/sql":           {"relay/registry", "cmd/internal/rig"},
	"unsafe":                 {"proto", "relay/ingest"}, // an event's name is read where it lies in its message
}

func TestImportsAreWrittenDown(t *testing.T) {
	missing := map[[2]string]bool{} // written down, and not seen yet
	for from, all := range edges {
		for _, to := range all {
			missing[[2]string{from, to}] = true
		}
	}
	seen := 0
	eachImport(t, func(file, from, to string) {
		if strings.HasSuffix(file, "_test.go") {
			return
		}
		seen++
		from = strings.TrimPrefix(from, "badgerelay/")
		for pkg, users := range outside {
			if matches(to, pkg) && !slices.ContainsFunc(users, func(user string) bool { return matches(from, user) }) {
				t.Errorf("%s imports %s, which %s may not", file, to, from)
			}
		}
		to, own := strings.CutPrefix(to, "badgerelay/")
		if !own {
			return
		}
		if delete(missing, [2]string{from, to}); !slices.Contains(edges[from], to) {
			t.Errorf("%s imports %s: an edge from %s that is not written down", file, to, from)
		}
	})
	for edge := range missing {
		t.Errorf("%s does not import %s any more", edge[0], edge[1])
	}
	if seen < 100 {
		t.Errorf("only %d imports were seen; the walk misses the code", seen)
	}
}

// TestNothingIsWrittenInAssembler keeps what Go's compiler and race detector can't read
// out of the module.
func TestNothingIsWrittenInAssembler(t *testing.T) {
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && filepath.Ext(path) == ".s" {
			t.Errorf("%s is assembler", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
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

// matches reports whether pkg is other or below it.
func matches(pkg, other string) bool { return pkg == other || strings.HasPrefix(pkg, other+"/") }
