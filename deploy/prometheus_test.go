package deploy_test

import (
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// monitored are the programs that Prometheus scrapes, and where their metrics and
// alerts are explained.
var monitored = map[string]struct {
	guide, metrics string // a file, and the heading of its section on metrics
	alerts, panels int    // at least
}{
	"badgerelay": {"reference.md", "\n## Metrics\n", 10, 30},
	"badgeagent": {"mailbox.md", "\n### The agent's health and metrics\n", 8, 20},
}

func rulesFile(program string) string { return "prometheus/" + program + ".rules.yaml" }
func testsFile(program string) string { return "prometheus/" + program + ".rules.test.yaml" }

func TestPrometheusRules(t *testing.T) {
	promtool := realProgram(t, "promtool", "prometheus")
	for program := range monitored {
		for _, args := range [][]string{{"check", "rules", rulesFile(program)}, {"test", "rules", testsFile(program)}} {
			if out, err := exec.CommandContext(t.Context(), promtool, args...).CombinedOutput(); err != nil {
				t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
			}
		}
	}
}

// alertName is how the tests of the rules name an alert.
var alertName = regexp.MustCompile(`alertname="(\w+)"`)

func TestEveryAlertIsTestedAndExplained(t *testing.T) {
	for program := range monitored {
		t.Run(program, func(t *testing.T) { testAlerts(t, program) })
	}
}

func testAlerts(t *testing.T, program string) {
	var tests struct {
		Tests []struct {
			Expressions []struct {
				Expr    string `yaml:"expr"`
				Samples []any  `yaml:"exp_samples"`
			} `yaml:"promql_expr_test"`
		}
	}
	decode(t, testsFile(program), &tests)
	var fires, silent []string
	for _, test := range tests.Tests {
		for _, e := range test.Expressions {
			name := alertName.FindStringSubmatch(e.Expr)
			switch {
			case name == nil:
			case len(e.Samples) == 0:
				silent = append(silent, name[1])
			default:
				fires = append(fires, name[1])
			}
		}
	}
	where := monitored[program].guide
	guide := read(t, where)
	for name, severities := range alerts(t, program) {
		if !slices.Contains(fires, name) || !slices.Contains(silent, name) {
			t.Errorf("%s has no test that it fires and that it stays silent", name)
		}
		_, row, found := strings.Cut(guide, "\n| `"+name+"` |")
		row, _, _ = strings.Cut(row, "|\n")
		cells := strings.Split(row, " | ")
		if !found || len(cells) != 3 || strings.TrimSpace(cells[1]) == "" || strings.TrimSpace(cells[2]) == "" {
			t.Errorf("%s does not say what %s means and what to do: %q", where, name, row)
			continue
		}
		if got, want := strings.TrimSpace(cells[0]), strings.Join(severities, ", "); got != want {
			t.Errorf("%s calls %s %s, the rules %s", where, name, got, want)
		}
	}
}

// alerts returns the alerts and their severities, in the order of the rules.
func alerts(t *testing.T, program string) map[string][]string {
	t.Helper()
	var rules struct {
		Groups []struct {
			Rules []struct {
				Alert       string            `yaml:"alert"`
				Labels      map[string]string `yaml:"labels"`
				Annotations map[string]string `yaml:"annotations"`
			}
		}
	}
	decode(t, rulesFile(program), &rules)
	all := map[string][]string{}
	for _, g := range rules.Groups {
		for _, r := range g.Rules {
			if r.Alert == "" {
				continue
			}
			all[r.Alert] = append(all[r.Alert], r.Labels["severity"])
			if r.Labels["severity"] == "" || r.Annotations["summary"] == "" || r.Annotations["remedy"] == "" {
				t.Errorf("%s lacks its severity, summary or remedy", r.Alert)
			}
		}
	}
	if len(all) < monitored[program].alerts {
		t.Errorf("%s has %d alerts", rulesFile(program), len(all))
	}
	return all
}
