package main

import (
	"bytes"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"badgerelay/cmd/internal/command"
	"badgerelay/cmd/internal/rig/rigtest"
)

// small has each command that measures do as little as makes figures. memory, which
// waits two minutes until mailboxes are idle, is not run: it prints as the others do.
var small = map[string]string{
	"apns":  "--pushes 1000 --devices 1000 --engine native",
	"fleet": "--agents 10 --organizations 2 --rate 100 --duration 1s --warmup 200ms",
	"relay": "--mailboxes 200 --duration 300ms --warmup 200ms --repeat 2",
	"scale": "--sizes 100,200 --duration 300ms --warmup 200ms",
}

// benchLine is a result of the Go benchmark format (golang.org/design/14313-benchmark-format):
// a name, iterations, and values with their units.
var benchLine = regexp.MustCompile(`^Benchmark[A-Z][^ ]*-[0-9]+ 1( [0-9.e+-]+ [^ ]+)+$`)

func TestEveryCommandPrintsWhatBenchstatReads(t *testing.T) {
	rigtest.Clean(t)
	for _, c := range program(&command.Terminal{}).Commands() {
		if !measures(c) || c.Name() == "memory" {
			continue
		}
		if small[c.Name()] == "" {
			t.Errorf("%s is not tried", c.Name())
		}
		t.Run(c.Name(), func(t *testing.T) {
			t.Parallel() // what they measure is not looked at
			args := append(programs(t), strings.Fields(c.Name()+" "+small[c.Name()])...)
			var out, said bytes.Buffer
			if code := run(t.Context(), args, &out, &said); code != command.Done {
				t.Fatalf("badgebench %v: exit code %d: %s%s", args, code, &said, &out)
			}
			runs := 0
			for line := range strings.Lines(out.String()) {
				if !strings.HasPrefix(line, "Benchmark") {
					continue
				}
				runs++
				if !benchLine.MatchString(strings.TrimSuffix(line, "\n")) {
					t.Errorf("benchstat does not read %s", line)
				}
				fields := strings.Fields(line)
				for i := 2; i+1 < len(fields); i += 2 {
					if _, err := strconv.ParseFloat(fields[i], 64); err != nil {
						t.Errorf("%v in %s", err, line)
					}
				}
			}
			if want := map[string]int{"relay": 2, "scale": 2}; runs < max(1, want[c.Name()]) {
				t.Errorf("%d results in %s", runs, &out)
			}
		})
	}
}

// measures reports whether a command makes a report: it is none that every program has.
func measures(c *cobra.Command) bool {
	switch c.Name() {
	case "completion", "help", "man", "version":
		return false
	}
	return !c.Hidden
}
