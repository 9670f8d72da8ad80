package deploy_test

import (
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// monitored are the programs that Prometheus scrapes, and the pages that list their
// metrics and alerts.
var monitored = map[string]struct {
	guide          string
	alerts, panels int // at least
}{
	"badgerelay": {"reference.md", 10, 30},
	"badgeagent": {"mailbox.md", 8, 20},
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

func TestEveryAlertIsTested(t *testing.T) {
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
	for _, name := range alerts(t, program) {
		if !slices.Contains(fires, name) || !slices.Contains(silent, name) {
			t.Errorf("%s has no test that it fires and that it stays silent", name)
		}
	}
}

// alerts returns the alerts in the order of the rules.
func alerts(t *testing.T, program string) (all []string) {
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
	for _, g := range rules.Groups {
		for _, r := range g.Rules {
			if r.Alert == "" {
				continue
			}
			all = append(all, r.Alert)
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
