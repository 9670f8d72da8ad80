package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"badgerelay/cmd/internal/reference"
	"badgerelay/relay/freeport"
)

// What operators load into their Prometheus and their Grafana.
const (
	rulesFile     = "../../deploy/prometheus/badgerelay.rules.yaml"
	dashboardFile = "../../deploy/grafana/badgerelay.dashboard.json"
)

// startScrapedRelay starts a relay that has every kind of metric: an app with
// a key and one with a certificate, TLS, and a badge delivered.
func startScrapedRelay(t *testing.T) *enrolled {
	t.Helper()
	r := startRelayWith(t, func(f files) string {
		certificate, key := f.pair(t, "push")
		return fmt.Sprintf(`
  - name: certified
    topic: com.example.other
    address: 127.0.0.1:1
    certificate: {file: %s, key_file: %s}
metadata: {address: "127.0.0.1:0"}
`, certificate, key)
	})
	r.subscribe(t, "ann@fabrikam.com", 1)
	r.publish(t, "ann@fabrikam.com", 7)
	r.wantBadge(t, 1, 7)
	return r
}

// TestReference: what a scrape shows is clean, and what the reference lists.
func TestReference(t *testing.T) {
	promtool := realProgram(t, "promtool")
	r := startScrapedRelay(t)
	_, exposition := get(t, "http://"+r.Ops+"/metrics")
	check := exec.CommandContext(t.Context(), promtool, "check", "metrics")
	check.Stdin = strings.NewReader(exposition)
	if out, err := check.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("promtool check metrics: %v\n%s", err, out)
	}
	reference.Compare(t, "../../deploy/reference.md", "metrics", reference.Metrics(t, "badgerelay_", exposition))
	if lines := strings.Count(exposition, "\nbadgerelay_"); lines > 700 {
		t.Errorf("a scrape has %d series of ours; something is labelled too finely", lines)
	}
}

// prometheusServer is a real Prometheus that scrapes one relay.
type prometheusServer struct{ url string }

// startPrometheus runs one with our rules, on a free port, until the test ends.
func startPrometheus(t *testing.T, target string) *prometheusServer {
	t.Helper()
	path := realProgram(t, "prometheus")
	f := newFiles(t)
	rules, err := filepath.Abs(rulesFile)
	if err != nil {
		t.Fatal(err)
	}
	config := f.write(t, "prometheus.yaml", fmt.Sprintf(`
global: {scrape_interval: 200ms, evaluation_interval: 200ms}
rule_files: [%s]
scrape_configs:
  - job_name: badgerelay
    static_configs: [{targets: ["%s"]}]
`, rules, target))
	listen, err := freeport.Address() // it does not say which port it got
	if err != nil {
		t.Fatal(err)
	}
	log := &logbook{}
	ctx, cancel := context.WithCancel(context.Background())
	server := exec.CommandContext(ctx, path, "--config.file", config, "--storage.tsdb.path", f.path("data"), "--web.listen-address", listen)
	server.Stdout, server.Stderr = log, log
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		_ = server.Wait() // killed, as asked
	})
	log.wait(t, "Server is ready to receive web requests")
	return &prometheusServer{"http://" + listen}
}

// api decodes the data of an answer of Prometheus' HTTP API.
func (p *prometheusServer) api(t *testing.T, path string, data any) {
	t.Helper()
	code, body := get(t, p.url+path)
	answer := struct{ Data any }{data}
	if err := json.Unmarshal([]byte(body), &answer); err != nil || code != http.StatusOK {
		t.Fatalf("GET %s = %d, %v: %s", path, code, err, body)
	}
}

// instant evaluates an expression now.
func (p *prometheusServer) instant(t *testing.T, expression string) []series {
	t.Helper()
	var data struct{ Result []series }
	p.api(t, "/api/v1/query?query="+url.QueryEscape(expression), &data)
	return data.Result
}

type series struct{ Metric map[string]string }

// wait asks until the expression has a result. Prometheus scrapes when it
// likes and tells nobody, so there is nothing to wait on but the clock.
func (p *prometheusServer) wait(t *testing.T, expression string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
	defer cancel()
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for {
		if len(p.instant(t, expression)) > 0 {
			return
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			t.Fatalf("%s never had a result", expression)
		}
	}
}

func TestPrometheusScrapesARelay(t *testing.T) {
	r := startScrapedRelay(t)
	p := startPrometheus(t, r.Ops)
	p.wait(t, `up{job="badgerelay"} == 1`)
	p.wait(t, `badgerelay_events_settled_total{outcome="delivered"} == 1`)
	p.wait(t, `badgerelay_ready == 1`)
	p.wait(t, `instance:badgerelay_certificate_left:seconds{app="certified"} > 300 * 86400`)
	p.wait(t, `job:badgerelay_events_pending:sum == 0`)

	p.wait(t, `job_app:badgerelay_devices_queued:sum == 0`)     // every rule of the group before it has had its turn
	p.wait(t, `count_over_time(up{job="badgerelay"}[1m]) >= 3`) // enough for a rate
	rules, names := p.rules(t), p.names(t)
	if len(rules) < 20 {
		t.Errorf("Prometheus has %d rules, want all of %s", len(rules), rulesFile)
	}
	for _, rule := range rules {
		if rule.Health == "err" {
			t.Errorf("%s: %s", rule.Name, rule.LastError)
		}
		wantMetrics(t, names, rule.Name, rule.Query)
	}
	p.wantDashboard(t, names)
}

// wantDashboard asks every query of the dashboard, and looks for the labels
// that its legends show.
func (p *prometheusServer) wantDashboard(t *testing.T, names []string) {
	t.Helper()
	data, err := os.ReadFile(dashboardFile)
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr, LegendFormat string }
		}
	}
	if err := json.Unmarshal(data, &dashboard); err != nil {
		t.Fatal(err)
	}
	variables := strings.NewReplacer("$__rate_interval", "1m", "$job", ".*", "$instance", ".*")
	queries, answered := 0, 0
	for _, panel := range dashboard.Panels {
		for _, target := range panel.Targets {
			queries++
			wantMetrics(t, names, panel.Title, target.Expr)
			for _, found := range p.instant(t, variables.Replace(target.Expr)) {
				answered++
				for _, label := range legend.FindAllStringSubmatch(target.LegendFormat, -1) {
					if found.Metric[label[1]] == "" {
						t.Errorf("%s shows the label %s, which %s has not", panel.Title, label[1], target.Expr)
					}
				}
			}
		}
	}
	if queries < 40 || answered < 40 {
		t.Errorf("%d queries of the dashboard had %d series", queries, answered)
	}
}

var legend = regexp.MustCompile(`\{\{(\w+)\}\}`)

type rule struct{ Name, Query, Health, LastError string }

func (p *prometheusServer) rules(t *testing.T) []rule {
	t.Helper()
	var data struct {
		Groups []struct{ Rules []rule }
	}
	p.api(t, "/api/v1/rules", &data)
	var all []rule
	for _, g := range data.Groups {
		all = append(all, g.Rules...)
	}
	return all
}

// names returns the name of every metric that the scrape brought, and of every
// one that a rule records, though there may be nothing to record yet.
func (p *prometheusServer) names(t *testing.T) []string {
	t.Helper()
	var names []string
	p.api(t, "/api/v1/label/__name__/values", &names)
	for _, r := range p.rules(t) {
		names = append(names, r.Name)
	}
	return names
}

var (
	quoted = regexp.MustCompile(`"[^"]*"`)
	metric = regexp.MustCompile(`[a-z_]+:badgerelay_[a-z0-9_:]+|\b(?:badgerelay|go|process)_[a-z0-9_]+|\bup\b`)
)

// wantMetrics looks for every metric that an expression names.
func wantMetrics(t *testing.T, names []string, where, expression string) {
	t.Helper()
	found := metric.FindAllString(quoted.ReplaceAllString(expression, `""`), -1)
	if len(found) == 0 {
		t.Errorf("%s asks for nothing: %s", where, expression)
	}
	for _, name := range found {
		if !slices.Contains(names, name) {
			t.Errorf("%s asks for %s, which no relay has", where, name)
		}
	}
}
