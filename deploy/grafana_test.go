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

const dashboardFile = "grafana/badgerelay.dashboard.json"

type panel struct {
	ID                       int
	Type, Title, Description string
	GridPos                  struct{ X, Y, W, H int }
	Targets                  []struct{ RefID, Expr string }
}

func dashboard(t *testing.T) []panel {
	t.Helper()
	var d struct{ Panels []panel }
	if err := json.Unmarshal([]byte(read(t, dashboardFile)), &d); err != nil {
		t.Fatalf("%s: %v", dashboardFile, err)
	}
	if len(d.Panels) < 30 {
		t.Fatalf("%s has %d panels", dashboardFile, len(d.Panels))
	}
	return d.Panels
}

// variables are what Grafana puts in a query's place of them.
var variables = strings.NewReplacer("$__rate_interval", "1m", "$job", ".*", "$instance", ".*")

func TestDashboardPanels(t *testing.T) {
	all := dashboard(t)
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

// TestDashboardShowsEveryMetric compares it with the guide's, which another test
// compares with the relay's.
func TestDashboardShowsEveryMetric(t *testing.T) {
	_, section, found := strings.Cut(read(t, "reference.md"), "\n## Metrics\n")
	section, _, more := strings.Cut(section, "\n## ")
	if !found || !more {
		t.Fatal("reference.md has no section on metrics")
	}
	text, metrics := read(t, dashboardFile), 0
	for line := range strings.Lines(section) {
		cells := strings.Split(line, "|")
		if len(cells) != 4 {
			continue
		}
		for _, name := range quotedInGuide.FindAllStringSubmatch(cells[1], -1) {
			metrics++
			if !regexp.MustCompile(`badgerelay_` + name[1] + `(_bucket|_sum|_count)?\{`).MatchString(text) {
				t.Errorf("no panel shows %s", name[1])
			}
		}
	}
	if metrics < 40 {
		t.Errorf("the guide has %d metrics", metrics)
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
	for _, p := range dashboard(t) {
		for _, query := range p.Targets {
			g.Rules = append(g.Rules, rule{fmt.Sprintf("panel%d:%s", p.ID, query.RefID), variables.Replace(query.Expr)})
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
