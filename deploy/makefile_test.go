package deploy_test

import (
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// makes runs make in the repository.
func makes(t *testing.T, args ...string) (string, error) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), realProgram(t, "make", "make"), append([]string{"--no-print-directory", "-C", ".."}, args...)...).CombinedOutput()
	return string(out), err
}

func TestMakeSaysWhatToDoWithoutGo(t *testing.T) {
	out, err := makes(t, "demo", "GO=/none/go")
	if err == nil || !strings.Contains(out, "https://go.dev/dl/") || !strings.Contains(out, "deploy/packages.md") {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestDemoLeavesNothingToInstall looks that what the guides install from bin is
// what make build made, and not a demo's program, which does not tell its version.
func TestDemoLeavesNothingToInstall(t *testing.T) {
	built := regexp.MustCompile(`go build .*-o (\S*)`)
	for _, target := range []string{"demo", "demo-dovecot", "dovecot-burst", "chaos"} {
		out, err := makes(t, "--dry-run", target)
		if err != nil {
			t.Fatalf("make %s: %v\n%s", target, err, out)
		}
		builds := built.FindAllStringSubmatch(out, -1)
		for _, b := range builds {
			if !strings.Contains(b[1], "/bin/devel/") {
				t.Errorf("make %s builds %s, want it apart from what is installed", target, b[1])
			}
		}
		if len(builds) == 0 || target == "demo" && !strings.Contains(out, "Compiling") {
			t.Errorf("make %s builds nothing, or does not say so:\n%s", target, out)
		}
	}
}
