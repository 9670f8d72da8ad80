package deploy_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// mostExposure is what systemd-analyze security may find in a unit, of 100. A
// service that must speak TCP and has no root directory of its own gets to
// about 12; one without sandboxing to 96.
const mostExposure = "15"

// program finds what a unit starts.
var program = regexp.MustCompile(`(?m)^(ExecStart=)\S+`)

func TestSystemdUnits(t *testing.T) {
	analyze := realProgram(t, "systemd-analyze", "systemd")
	units, err := filepath.Glob("systemd/*.service")
	if err != nil || len(units) == 0 {
		t.Fatalf("no units: %v", err)
	}
	for _, file := range units {
		t.Run(filepath.Base(file), func(t *testing.T) {
			// The program is not installed here; any other will do.
			unit := filepath.Join(t.TempDir(), filepath.Base(file))
			if err := os.WriteFile(unit, []byte(program.ReplaceAllString(read(t, file), "${1}/bin/true")), 0o600); err != nil {
				t.Fatal(err)
			}
			// It warns of what it does not know, and succeeds.
			out, err := exec.CommandContext(t.Context(), analyze, "verify", "--man=no", unit).CombinedOutput()
			if err != nil || len(out) > 0 {
				t.Errorf("systemd-analyze verify: %v\n%s", err, out)
			}
			out, err = exec.CommandContext(t.Context(), analyze, "security", "--offline=true", "--no-pager", "--threshold="+mostExposure, unit).CombinedOutput()
			if err != nil {
				t.Errorf("systemd-analyze security: %v\n%s", err, out)
			}
		})
	}
}

// setting returns a setting of a unit, the last one where it stands twice.
func setting(unit, key string) string {
	value := ""
	for line := range strings.Lines(unit) {
		if v, found := strings.CutPrefix(strings.TrimSpace(line), key+"="); found {
			value = v
		}
	}
	return value
}

func TestRelayUnitFitsTheExampleConfiguration(t *testing.T) {
	unit := read(t, "systemd/badgerelay.service")
	var example struct {
		Admin    struct{ Socket string }
		Registry struct{ Path string }
		Drain    string `yaml:"drain_budget"`
	}
	decode(t, "badgerelay.example.yaml", &example)
	if want := "/run/" + setting(unit, "RuntimeDirectory"); filepath.Dir(example.Admin.Socket) != want {
		t.Errorf("admin.socket is %s, want it in %s", example.Admin.Socket, want)
	}
	if want := "/var/lib/" + setting(unit, "StateDirectory"); filepath.Dir(example.Registry.Path) != want {
		t.Errorf("registry.path is %s, want it in %s", example.Registry.Path, want)
	}
	drain, err := time.ParseDuration(example.Drain)
	if err != nil {
		t.Fatal(err)
	}
	stop, err := time.ParseDuration(setting(unit, "TimeoutStopSec") + "s")
	if err != nil || stop < drain+5*time.Second {
		t.Errorf("TimeoutStopSec is %s, %v; the drain takes %s", stop, err, drain)
	}
	wantRestarts(t, unit)
}

// wantRestarts looks that only a bad configuration keeps a unit from being
// started again. cmd/badgerelay tests that a crash is told from it.
func wantRestarts(t *testing.T, unit string) {
	t.Helper()
	if got := setting(unit, "Restart"); got != "on-failure" {
		t.Errorf("Restart=%s, want on-failure", got)
	}
	if got := setting(unit, "RestartPreventExitStatus"); got != "2" {
		t.Errorf("RestartPreventExitStatus=%s, want the exit code of a bad configuration", got)
	}
	if got := setting(unit, "Environment"); got != "GOTRACEBACK=crash" {
		t.Errorf("Environment=%s, want GOTRACEBACK=crash: else a panic ends with 2 too, and nothing starts it again", got)
	}
}

func TestAgentUnitFitsTheExampleConfiguration(t *testing.T) {
	unit := read(t, "systemd/badgeagent.service")
	var example struct {
		Drain string `yaml:"drain_budget"`
	}
	decode(t, "badgeagent.example.yaml", &example)
	if want := "# socket: /run/" + setting(unit, "RuntimeDirectory") + "/"; !strings.Contains(read(t, "badgeagent.example.yaml"), want) {
		t.Errorf("the example's local socket is not at %q", want)
	}
	drain, err := time.ParseDuration(example.Drain)
	if err != nil {
		t.Fatal(err)
	}
	stop, err := time.ParseDuration(setting(unit, "TimeoutStopSec") + "s")
	if err != nil || stop < drain+5*time.Second {
		t.Errorf("TimeoutStopSec is %s, %v; the drain takes %s", stop, err, drain)
	}
	wantRestarts(t, unit)
}
