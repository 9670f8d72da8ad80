package deploy_test

import (
	"encoding/json"
	"fmt"
	"image"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

func dashboardFile(program string) string { return "grafana/" + program + ".dashboard.json" }

type panel struct {
	ID                       int
	Type, Title, Description string
	GridPos                  struct{ X, Y, W, H int }
	Targets                  []struct{ RefID, Expr string }
}

func dashboard(t *testing.T, program string) []panel {
	t.Helper()
	var d struct{ Panels []panel }
	if err := json.Unmarshal([]byte(read(t, dashboardFile(program))), &d); err != nil {
		t.Fatalf("%s: %v", dashboardFile(program), err)
	}
	if len(d.Panels) < monitored[program].panels {
		t.Fatalf("%s has %d panels", dashboardFile(program), len(d.Panels))
	}
	return d.Panels
}

// variables are what Grafana puts in a query's place of them.
var variables = strings.NewReplacer("$__rate_interval", "1m", "$job", ".*", "$instance", ".*")

func TestDashboardPanels(t *testing.T) {
	for program := range monitored {
		t.Run(program, func(t *testing.T) { testPanels(t, dashboard(t, program)) })
	}
}

func testPanels(t *testing.T, all []panel) {
	ids := map[int]string{}
	place := func(p panel) image.Rectangle {
		return image.Rect(p.GridPos.X, p.GridPos.Y, p.GridPos.X+p.GridPos.W, p.GridPos.Y+p.GridPos.H)
	}
	for i, p := range all {
		if other, taken := ids[p.ID]; taken {
			t.Errorf("%s and %s have the id %d", p.Title, other, p.ID)
		}
		ids[p.ID] = p.Title
		for _, other := range all[:i] {
			if place(p).Overlaps(place(other)) {
				t.Errorf("%s lies over %s", p.Title, other.Title)
			}
		}
		if !place(p).In(image.Rect(0, 0, 24, 1000)) {
			t.Errorf("%s is outside of the grid", p.Title)
		}
		if p.Type != "row" && (p.Description == "" || len(p.Targets) == 0) {
			t.Errorf("%s has no description or asks for nothing", p.Title)
		}
	}
}

var metricInReference = regexp.MustCompile("(?m)^\\| `(\\w+)` \\|")

// TestDashboardShowsEveryMetric compares it with the reference, which is made from
// the programs.
func TestDashboardShowsEveryMetric(t *testing.T) {
	for program, at := range monitored {
		_, section, found := strings.Cut(read(t, at.guide), "<!-- made by make reference: metrics -->")
		section, _, more := strings.Cut(section, "<!-- end of metrics -->")
		if !found || !more {
			t.Fatalf("%s has no section on metrics", at.guide)
		}
		text := read(t, dashboardFile(program))
		metrics := metricInReference.FindAllStringSubmatch(section, -1)
		for _, name := range metrics {
			if !regexp.MustCompile(program + `_` + name[1] + `(_bucket|_sum|_count)?\{`).MatchString(text) {
				t.Errorf("%s: no panel shows %s", program, name[1])
			}
		}
		if len(metrics) < 40 {
			t.Errorf("%s has %d metrics", at.guide, len(metrics))
		}
	}
}

// TestDashboardQueriesParse has Prometheus' own parser read them, as rules.
func TestDashboardQueriesParse(t *testing.T) {
	promtool := realProgram(t, "promtool", "prometheus")
	type rule struct {
		Record string `yaml:"record"`
		Expr   string `yaml:"expr"`
	}
	type group struct {
		Name  string `yaml:"name"`
		Rules []rule `yaml:"rules"`
	}
	g := group{Name: "dashboard"}
	for program := range monitored {
		for _, p := range dashboard(t, program) {
			for _, query := range p.Targets {
				g.Rules = append(g.Rules, rule{fmt.Sprintf("%s%d:%s", program, p.ID, query.RefID), variables.Replace(query.Expr)})
			}
		}
	}
	data, err := yaml.Marshal(map[string]any{"groups": []group{g}})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "dashboard.yaml")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), promtool, "check", "rules", file).CombinedOutput(); err != nil {
		t.Errorf("promtool check rules: %v\n%s\n%s", err, out, data)
	}
}
