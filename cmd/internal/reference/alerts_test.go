package reference

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// Alerts is a table of the alerts in a file of Prometheus rules, in its order. An
// alert that comes with several severities is one row.
func Alerts(t *testing.T, file string) string {
	t.Helper()
	var rules struct {
		Groups []struct {
			Rules []struct {
				Alert       string            `yaml:"alert"`
				Labels      map[string]string `yaml:"labels"`
				Annotations map[string]string `yaml:"annotations"`
			} `yaml:"rules"`
		} `yaml:"groups"`
	}
	data, err := os.ReadFile(file)
	if err == nil {
		err = yaml.Unmarshal(data, &rules)
	}
	if err != nil {
		t.Fatal(err)
	}
	pages := filepath.Dir(filepath.Dir(file))
	var rows [][]string
	for _, g := range rules.Groups {
		for _, r := range g.Rules {
			if r.Alert == "" {
				continue
			}
			name := "`" + r.Alert + "`"
			if last := len(rows) - 1; last >= 0 && rows[last][0] == name {
				rows[last][1] += ", " + r.Labels["severity"]
				continue
			}
			if r.Annotations["description"] == "" || r.Annotations["remedy"] == "" {
				t.Errorf("%s: %s says not what it means and what to do", file, r.Alert)
			}
			rows = append(rows, []string{name, r.Labels["severity"], linked(t, pages, r.Annotations["description"]), linked(t, pages, r.Annotations["remedy"])})
		}
	}
	return table([]string{"alert", "severity", "it means", "what to do"}, rows)
}

var (
	place   = regexp.MustCompile(`([a-z]+\.md)#([a-z0-9-]+)`)
	heading = regexp.MustCompile(`(?m)^#+ (.+)$`)
	inWords = regexp.MustCompile(`[^a-z0-9 -]`)
)

// linked makes links of places in pages: operate.md#when-apple-is-down.
func linked(t *testing.T, pages, text string) string {
	t.Helper()
	return place.ReplaceAllStringFunc(text, func(found string) string {
		page, anchor, _ := strings.Cut(found, "#")
		data, err := os.ReadFile(filepath.Join(pages, page))
		if err != nil {
			t.Error(err)
			return found
		}
		for _, h := range heading.FindAllStringSubmatch(string(data), -1) {
			if strings.ReplaceAll(inWords.ReplaceAllString(strings.ToLower(h[1]), ""), " ", "-") == anchor {
				return "[" + h[1] + "](" + found + ")"
			}
		}
		t.Errorf("%s has no heading #%s", page, anchor)
		return found
	})
}
