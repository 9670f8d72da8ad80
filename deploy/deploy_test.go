// Package deploy_test holds what operators are given to the programs that will
// read it: Prometheus' own checker, systemd's, and the Kubernetes API's types.
package deploy_test

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// realProgram finds a program that the test runs for real. In CI it has to be
// there.
func realProgram(t *testing.T, name, debianPackage string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err == nil {
		return path
	}
	if os.Getenv("CI") != "" {
		t.Fatalf("this test runs %s of Debian's package %s, which is not installed", name, debianPackage)
	}
	t.Skipf("this test runs %s of Debian's package %s, which is not installed", name, debianPackage)
	return ""
}

func read(t *testing.T, file string) string {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// decode reads a YAML file.
func decode(t *testing.T, file string, into any) {
	t.Helper()
	if err := yaml.Unmarshal([]byte(read(t, file)), into); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
}

// TestLogAndGuideAgree looks for every message that the guide explains, and for
// an explanation of every warning and error.
func TestLogAndGuideAgree(t *testing.T) {
	_, section, found := strings.Cut(read(t, "reference.md"), "\n## The log\n")
	section, _, more := strings.Cut(section, "\n## ")
	if !found || !more {
		t.Fatal("reference.md has no section on the log")
	}
	sources := relaySources(t)
	messages := 0
	for line := range strings.Lines(section) {
		cells := strings.Split(line, "|")
		if len(cells) < 3 {
			continue
		}
		for _, message := range quotedInGuide.FindAllStringSubmatch(cells[1], -1) {
			messages++
			if !strings.Contains(sources, `("`+message[1]+`"`) && !strings.Contains(sources, `level, "`+message[1]+`"`) {
				t.Errorf("the guide explains %q, which nothing logs", message[1])
			}
		}
	}
	if messages < 12 {
		t.Errorf("the guide explains %d messages", messages)
	}
	troubles := troubleInLog.FindAllStringSubmatch(sources, -1)
	for _, message := range troubles {
		if !strings.Contains(section, "`"+message[1]+"`") {
			t.Errorf("the relay logs %q, which the guide does not explain", message[1])
		}
	}
	if len(troubles) < 20 {
		t.Errorf("%d warnings and errors found", len(troubles))
	}
}

// relaySources returns the text of everything that the relay is made of.
func relaySources(t *testing.T) string {
	t.Helper()
	var sources strings.Builder
	for _, directory := range []string{"../cmd/badgerelay", "../cmd/internal", "../relay", "../apns", "../auth"} {
		err := filepath.WalkDir(directory, func(path string, entry fs.DirEntry, err error) error {
			switch name := entry.Name(); {
			case err != nil:
				return err
			case entry.IsDir() && (strings.HasSuffix(name, "test") || name == "agent"):
				return fs.SkipDir // simulators and suites, and the other side's library
			case strings.HasSuffix(name, ".go") && !strings.HasSuffix(name, "_test.go"):
				sources.WriteString(read(t, path))
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return sources.String()
}

var (
	quotedInGuide = regexp.MustCompile("`([^`]+)`")
	// A message has several words; what has one is a field of the configuration.
	troubleInLog = regexp.MustCompile(`\.(?:Warn|Error)\("([^"]+ [^"]+)"`)
)
