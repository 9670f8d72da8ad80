package reference

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// open are labels whose values come from outside: a configuration, a build.
var open = []string{"app", "organization", "version", "go", "listener", "method", "operation", "path", "code"}

// mostValues is how many values of a label a table names.
const mostValues = 12

// Metrics is a table of a program's metrics: those of a scrape whose names begin
// with prefix.
func Metrics(t *testing.T, prefix, exposition string) string {
	t.Helper()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(exposition))
	if err != nil {
		t.Fatal(err)
	}
	var rows [][]string
	for _, name := range slices.Sorted(maps.Keys(families)) {
		f := families[name]
		name, ours := strings.CutPrefix(name, prefix)
		if !ours || strings.HasPrefix(name, "promhttp_") {
			continue
		}
		rows = append(rows, []string{"`" + name + "`", strings.ToLower(f.GetType().String()), labels(f), f.GetHelp()})
	}
	return table([]string{"metric", "type", "labels", "meaning"}, rows)
}

// labels names the labels of a family, with their values where these are few and
// ours.
func labels(f *dto.MetricFamily) string {
	values := map[string]map[string]bool{}
	for _, m := range f.GetMetric() {
		for _, l := range m.GetLabel() {
			if values[l.GetName()] == nil {
				values[l.GetName()] = map[string]bool{}
			}
			values[l.GetName()][l.GetValue()] = true
		}
	}
	var all []string
	for _, name := range slices.Sorted(maps.Keys(values)) {
		text := "`" + name + "`"
		if n := len(values[name]); !slices.Contains(open, name) && n > 1 && n <= mostValues {
			text = fmt.Sprintf("%s: %s", text, strings.Join(slices.Sorted(maps.Keys(values[name])), ", "))
		}
		all = append(all, text)
	}
	return strings.Join(all, "; ")
}
