package report

import (
	"fmt"
	"io"
	"maps"
	"runtime"
	"slices"
	"strings"
)

// Bench writes every run as a line of the Go benchmark format, which benchstat
// reads (golang.org/design/14313-benchmark-format): one benchmark for each case, a
// figure's unit being its name and the unit it has. The commit is left out: benchstat
// compares what has the same settings, and the commit is what is compared.
func (r *Report) Bench(w io.Writer) {
	fmt.Fprintf(w, "goos: %s\ngoarch: %s\n", runtime.GOOS, runtime.GOARCH)
	if r.Machine.CPU != "" {
		fmt.Fprintf(w, "cpu: %s\n", r.Machine.CPU)
	}
	for _, name := range slices.Sorted(maps.Keys(r.Settings)) {
		if value := r.Settings[name]; value != "" {
			fmt.Fprintf(w, "%s: %s\n", name, value)
		}
	}
	for _, c := range r.Cases {
		c.bench(w, r.benchmark(c))
	}
}

// benchmark is the name of a case's benchmark: BenchmarkAPNs/native-2.
func (r *Report) benchmark(c *Case) string {
	words := strings.Fields(r.Command)
	name := "Benchmark" + words[len(words)-1]
	name = name[:9] + strings.ToUpper(name[9:10]) + name[10:]
	if c.Name != "" {
		name += "/" + token(c.Name)
	}
	return fmt.Sprintf("%s-%d", name, r.Machine.Cores)
}

func (c *Case) bench(w io.Writer, name string) {
	runs := 0
	for _, f := range c.Figures {
		runs = max(runs, len(f.Runs))
	}
	for i := range runs {
		fmt.Fprintf(w, "%s 1", name)
		for _, f := range c.Figures {
			if i < len(f.Runs) {
				fmt.Fprintf(w, " %g %s", f.Runs[i], f.unit())
			}
		}
		fmt.Fprintln(w)
	}
}

func (f *Figure) unit() string {
	if f.Unit == "" || f.Unit == "/s" { // the name says that
		return token(f.Name)
	}
	return token(f.Name + "-" + f.Unit)
}

// token is a text without what parts words.
func token(s string) string { return strings.Join(strings.Fields(s), "_") }
