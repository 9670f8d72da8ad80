// Package report gathers figures and prints them, as JSON or as a table.
//
// A measurement consists of cases, each measured several times; a figure is
// quoted as the median of its runs with the least and the greatest. A report
// with problems quotes no figure at all.
package report

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
)

// Figure is one number over several runs.
type Figure struct {
	Name   string    `json:"name"`
	Unit   string    `json:"unit"`
	Median float64   `json:"median"`
	Min    float64   `json:"min"`
	Max    float64   `json:"max"`
	Runs   []float64 `json:"runs"`
}

// Case is one setting under which runs were made, with its figures in the order they
// are shown in. Each run has the same, save that one may miss in some.
type Case struct {
	Name    string    `json:"name,omitempty"`
	Figures []*Figure `json:"figures"`
}

// Add adds a figure of a run.
func (c *Case) Add(name, unit string, value float64) {
	i := slices.IndexFunc(c.Figures, func(f *Figure) bool { return f.Name == name })
	if i < 0 {
		i = len(c.Figures)
		c.Figures = append(c.Figures, &Figure{Name: name, Unit: unit})
	}
	f := c.Figures[i]
	f.Runs = append(f.Runs, value)
	sorted := slices.Sorted(slices.Values(f.Runs))
	n := len(sorted)
	f.Min, f.Max = sorted[0], sorted[n-1]
	f.Median = (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// Report is what a command prints.
type Report struct {
	Command  string            `json:"command"`
	Machine  Machine           `json:"machine"`
	Settings map[string]string `json:"settings"`
	Repeat   int               `json:"repeat"`
	Problems []string          `json:"problems,omitempty"` // why there are no figures
	Cases    []*Case           `json:"cases,omitempty"`
	Notes    []string          `json:"notes,omitempty"`
}

// New returns the report of a command on this machine, of so many runs.
func New(command string, settings map[string]string, repeat int) *Report {
	return &Report{Command: command, Machine: here(), Settings: settings, Repeat: repeat}
}

// Case returns the case of this name, and adds it if there is none.
func (r *Report) Case(name string) *Case {
	for _, c := range r.Cases {
		if c.Name == name {
			return c
		}
	}
	c := &Case{Name: name}
	r.Cases = append(r.Cases, c)
	return c
}

// Fail notes a problem: from now on the report quotes no figures.
func (r *Report) Fail(format string, args ...any) {
	r.Problems = append(r.Problems, fmt.Sprintf(format, args...))
}

// OtherCPU is the figure that says what other processes of the machine took.
const OtherCPU = "other_cpu"

// quiet is how much others may take before figures are doubted. Ours: beside
// one busy core of two, a push cost half as much again in one run as in another.
const quiet = 0.1 // cores

// Finish completes the report: one with problems has no figures, and of each case, most
// of whose runs had company, it notes that it has to be measured again.
func (r *Report) Finish() {
	if len(r.Problems) > 0 {
		r.Cases = nil
	}
	for _, c := range r.Cases {
		for _, f := range c.Figures {
			if f.Name == OtherCPU && f.Median > quiet {
				r.Notes = append(r.Notes, strings.Replace(fmt.Sprintf(
					"Of %s: other processes took %.2f cores meanwhile: measure again on a quiet machine.", c.Name, f.Median), "Of : o", "O", 1))
			}
		}
	}
}

// Table writes the report for people.
func (r *Report) Table(w io.Writer) {
	m := r.Machine
	fmt.Fprintf(w, "%s on %s, %d cores, %d MB, Linux %s, %s, commit %s, %s\n", r.Command, cmp.Or(m.CPU, m.Platform), m.Cores, m.MemoryMB, m.Kernel, m.Go,
		cmp.Or(m.Commit, "unknown"), m.Date.Format("2006-01-02 15:04"))
	var settings []string
	for name, value := range r.Settings {
		settings = append(settings, name+" "+value)
	}
	slices.Sort(settings)
	fmt.Fprintf(w, "%s; %d runs\n", strings.Join(settings, ", "), r.Repeat)
	for _, p := range r.Problems {
		fmt.Fprintf(w, "PROBLEM: %s\n", p)
	}
	if len(r.Problems) > 0 {
		fmt.Fprintln(w, "No figures: they would not count.")
	}
	for _, c := range r.Cases {
		c.table(w, r.Repeat > 1)
	}
	for _, n := range r.Notes {
		fmt.Fprintf(w, "\n%s\n", n)
	}
}

func (c *Case) table(w io.Writer, spread bool) {
	fmt.Fprintln(w)
	if c.Name != "" {
		fmt.Fprintln(w, c.Name)
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	for _, f := range c.Figures {
		fmt.Fprintf(t, "%s\t%s\t%s", f.Name, number(f.Median), f.Unit)
		if spread {
			fmt.Fprintf(t, "\t%s\tto %s", number(f.Min), number(f.Max))
		}
		fmt.Fprintln(t, "\t")
	}
	_ = t.Flush() // as with any print to a terminal
}

// number writes four significant digits, and all of a large one.
func number(v float64) string {
	switch {
	case v >= 1000 || v <= -1000 || v == float64(int64(v)):
		return fmt.Sprintf("%.0f", v)
	case v >= 100:
		return fmt.Sprintf("%.1f", v)
	case v >= 10:
		return fmt.Sprintf("%.2f", v)
	}
	return fmt.Sprintf("%.3f", v)
}
