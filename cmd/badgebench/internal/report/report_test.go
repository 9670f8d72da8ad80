package report_test

import (
	"bytes"
	"strings"
	"testing"

	"badgerelay/cmd/badgebench/internal/report"
)

func runs(r *report.Report, values ...float64) {
	for _, v := range values {
		run := &report.Run{}
		run.Add("cost", "us", v)
		r.Case("").Add(run)
	}
}

func TestFiguresAreMedians(t *testing.T) {
	for _, test := range []struct {
		values           []float64
		median, min, max float64
	}{
		{[]float64{7}, 7, 7, 7},
		{[]float64{9, 1, 5}, 5, 1, 9},
		{[]float64{4, 1, 2, 9}, 3, 1, 9},
	} {
		var r report.Report
		runs(&r, test.values...)
		got := r.Cases[0].Figures[0]
		if got.Median != test.median || got.Min != test.min || got.Max != test.max || len(got.Runs) != len(test.values) {
			t.Errorf("%v: %+v, want median %v of %v to %v", test.values, got, test.median, test.min, test.max)
		}
	}
}

func TestAReportWithProblemsQuotesNothing(t *testing.T) {
	r := report.Report{Command: "badgebench relay", Repeat: 1}
	runs(&r, 1234.5)
	for name, print := range map[string]func(*bytes.Buffer) error{
		"json": func(b *bytes.Buffer) error { return r.JSON(b) }, "table": func(b *bytes.Buffer) error { return r.Table(b) },
	} {
		var good, bad bytes.Buffer
		r.Problems = nil
		if err := print(&good); err != nil || !strings.Contains(good.String(), "123") {
			t.Errorf("%s, %v: %s, want the figure", name, err, &good)
		}
		r.Fail("%d badges are wrong", 3)
		if err := print(&bad); err != nil || strings.Contains(bad.String(), "123") || !strings.Contains(bad.String(), "3 badges are wrong") {
			t.Errorf("%s, %v: %s, want the problem and no figure", name, err, &bad)
		}
	}
}

func TestAReportDoubtsWhatHadCompany(t *testing.T) {
	var r report.Report
	for name, strangers := range map[string][]float64{"busy": {0.05, 0.4, 0.3}, "quiet": {0.1, 0.02, 0.9}} {
		for _, v := range strangers {
			run := &report.Run{}
			run.Add(report.Strangers, "cores", v)
			r.Case(name).Add(run)
		}
	}
	r.Doubt()
	if len(r.Notes) != 1 || !strings.HasPrefix(r.Notes[0], "busy: other processes took 0.30 cores") {
		t.Errorf("notes are %q, want one on what was busy", r.Notes)
	}
}
