// Package deploy_test holds what operators are given to the programs that will
// read it: Prometheus' own checker and systemd's. Kubernetes' manifests are tested in a module of their own, beside them.
package deploy_test

import (
	"os"
	"os/exec"
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
