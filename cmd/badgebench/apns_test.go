package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"badgerelay/cmd/badgebench/internal/report"
	"badgerelay/cmd/internal/buildinfo"
	"badgerelay/cmd/internal/command"
)

// measured runs a command and returns its report.
func measured(t *testing.T, args ...string) *report.Report {
	t.Helper()
	var out, progress bytes.Buffer
	if code := run(t.Context(), append(append(args, "--output", "json"), programs(t)...), &out, &progress); code != command.Done {
		t.Fatalf("badgebench %s: exit code %d: %s%s", strings.Join(args, " "), code, &progress, &out)
	}
	r := &report.Report{}
	if err := json.Unmarshal(out.Bytes(), r); err != nil {
		t.Fatalf("%v in %s", err, &out)
	}
	return r
}

// figure returns a median; the test fails if it is missing.
func figure(t *testing.T, r *report.Report, name, figure string) float64 {
	t.Helper()
	for _, f := range r.Case(name).Figures {
		if f.Name == figure {
			return f.Median
		}
	}
	t.Errorf("case %q has no figure %q: %+v", name, figure, r.Case(name))
	return 0
}

// TestApns looks at figures that don't depend on the machine's load.
func TestApns(t *testing.T) {
	r := measured(t, "apns", "--pushes", "20000", "--devices", "2000", "--repeat", "2")
	for _, engine := range []string{"native", "apns2"} {
		if figure(t, r, engine, "pushes_per_second") <= 0 || figure(t, r, engine, "client_cpu_per_push") <= 0 {
			t.Errorf("%s did nothing", engine)
		}
		if n := figure(t, r, engine, "written_per_push"); n < 100 || n > 300 {
			t.Errorf("%s writes %v bytes a push", engine, n)
		}
	}
	if n := figure(t, r, "native", "pushes_per_write"); n < 20 {
		t.Errorf("the native engine packs %v pushes into a write, want tens", n)
	}
	if n := figure(t, r, "ratio of client_cpu_per_push", "native_to_apns2"); n <= 0 || n >= 1 {
		t.Errorf("the native engine costs %v of apns2", n)
	}
}

func TestApnsOffered(t *testing.T) {
	defer func(was string) { buildinfo.Commit = was }(buildinfo.Commit)
	buildinfo.Commit = "0123abcd" // as the linker sets it; go test leaves the repository's state out
	r := measured(t, "apns", "--engine", "native", "--rtt", "5ms", "--offered", "2000", "--duration", "1s", "--connections", "2")
	if n := figure(t, r, "native", "flowing"); n <= 0 || n > 4000 {
		t.Errorf("of 2000 a second, %v flow", n)
	}
	if r.Machine.Commit != "0123abcd" {
		t.Errorf("the report says commit %q, want what the linker set", r.Machine.Commit)
	}
	if n := figure(t, r, "native", "connections"); n != 1 && n != 2 {
		t.Errorf("%v connections", n)
	}
}

func TestApnsUsage(t *testing.T) {
	for _, args := range [][]string{
		{"--engine", "fast"}, {"--pushes", "1"}, {"--connections", "0"}, {"--devices", "10"}, {"--offered", "-1"}, {"--rtt", "x"}, {"more"},
	} {
		var out, progress bytes.Buffer
		if code := run(t.Context(), append([]string{"apns"}, args...), &out, &progress); code != command.Misused {
			t.Errorf("apns %v: exit code %d, want %d: %s", args, code, command.Misused, &progress)
		}
	}
}
