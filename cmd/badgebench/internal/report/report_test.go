package report_test

import (
	"bytes"
	"strings"
	"testing"

	"badgerelay/cmd/badgebench/internal/report"
)

func runs(r *report.Report, values ...float64) {
	for _, v := range values {
		r.Case("").Add("cost", "us", v)
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
	for _, failed := range []bool{false, true} {
		r := report.Report{Command: "badgebench relay", Repeat: 1}
		runs(&r, 1234.5)
		if failed {
			r.Fail("%d badges are wrong", 3)
		}
		r.Finish()
		var b bytes.Buffer
		r.Table(&b)
		r.Bench(&b)
		if figure, problem := strings.Contains(b.String(), "123"), strings.Contains(b.String(), "3 badges are wrong"); figure == failed || problem != failed || len(r.Cases) == 0 != failed {
			t.Errorf("failed: %v, %d cases; %s", failed, len(r.Cases), &b)
		}
	}
}

func TestAReportDoubtsWhatHadCompany(t *testing.T) {
	var r report.Report
	for name, strangers := range map[string][]float64{"busy": {0.05, 0.4, 0.3}, "quiet": {0.1, 0.02, 0.9}} {
		for _, v := range strangers {
			r.Case(name).Add(report.OtherCPU, "cores", v)
		}
	}
	r.Finish()
	if len(r.Notes) != 1 || !strings.HasPrefix(r.Notes[0], "Of busy: other processes took 0.30 cores") {
		t.Errorf("notes are %q, want one on what was busy", r.Notes)
	}
}

// TestBenchmarkFormat: each run is a line, and a figure that one run lacks is left out
// of the last.
func TestBenchmarkFormat(t *testing.T) {
	r := report.Report{Command: "badgebench apns", Repeat: 2, Settings: map[string]string{"rtt": "50ms", "registry": ""}, Machine: report.Machine{CPU: "Some CPU", Cores: 2, Commit: "abc"}}
	for _, v := range []float64{1.5, 2} {
		r.Case("native engine").Add("client_cpu_per_push", "us", v)
		if v == 1.5 {
			r.Case("native engine").Add("wrong badges", "", 0)
		}
	}
	var b bytes.Buffer
	r.Bench(&b)
	_, got, _ := strings.Cut(b.String(), "\ncpu")
	want := ": Some CPU\nrtt: 50ms\n" +
		"BenchmarkApns/native_engine-2 1 1.5 client_cpu_per_push-us 0 wrong_badges\n" +
		"BenchmarkApns/native_engine-2 1 2 client_cpu_per_push-us\n"
	if got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
