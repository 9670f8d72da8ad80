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

// TestLogMessagesAreThePrograms looks for every message that the guide explains.
func TestLogMessagesAreThePrograms(t *testing.T) {
	_, section, found := strings.Cut(read(t, "README.md"), "\n## The log\n")
	section, _, more := strings.Cut(section, "\n## ")
	if !found || !more {
		t.Fatal("README.md has no section on the log")
	}
	var sources strings.Builder
	for _, directory := range []string{"../cmd", "../relay", "../apns"} {
		err := filepath.WalkDir(directory, func(path string, _ fs.DirEntry, err error) error {
			if err == nil && strings.HasSuffix(path, ".go") && !strings.HasSuffix(path, "_test.go") {
				sources.WriteString(read(t, path))
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	messages := 0
	for line := range strings.Lines(section) {
		cells := strings.Split(line, "|")
		if len(cells) < 3 {
			continue
		}
		for _, message := range quotedInGuide.FindAllStringSubmatch(cells[1], -1) {
			messages++
			if !strings.Contains(sources.String(), `("`+message[1]+`"`) && !strings.Contains(sources.String(), `level, "`+message[1]+`"`) {
				t.Errorf("the guide explains %q, which nothing logs", message[1])
			}
		}
	}
	if messages < 12 {
		t.Errorf("the guide explains %d messages", messages)
	}
}

var quotedInGuide = regexp.MustCompile("`([^`]+)`")
