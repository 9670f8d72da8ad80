package simulation

import (
	"fmt"
	"slices"
	"strings"
)

// Explanation is what is to be known of a seed that fails.
type Explanation struct {
	Plan    *Plan
	Again   int     // how many of the repetitions failed as well
	Shorter *Plan   // with fewer steps; it failed twice in a row
	Last    *Result // of Shorter; nil: it never failed again
}

// repetitions is how often a failing seed is run again.
const repetitions = 10

// shrinkRuns bounds the runs that shortening takes.
const shrinkRuns = 400

// Explain repeats a plan that failed and leaves out of it what its failure does
// not need. fails runs a plan and returns its result if that failed.
//
// The scheduler of goroutines is not in the seed's hands, so a step is left out
// only where what remains fails; where a failure is rare, more steps remain than
// it needs.
func Explain(p *Plan, fails func(*Plan) *Result) *Explanation {
	e := &Explanation{Plan: p, Shorter: p}
	if e.Again, e.Last = repeated(p, fails); e.Again == 0 {
		return e
	}
	runs := 0
	for size := max(1, len(p.Steps)/2); size > 0; size /= 2 {
		for at := 0; at < len(e.Shorter.Steps) && runs < shrinkRuns; {
			shorter := *e.Shorter
			shorter.Steps = slices.Delete(slices.Clone(shorter.Steps), at, min(len(shorter.Steps), at+size))
			runs++
			if r := fails(&shorter); r != nil {
				e.Shorter, e.Last = &shorter, r
			} else {
				at += size
			}
		}
	}
	return e
}

// repeated runs a plan several times, and returns how often it failed and how last.
func repeated(p *Plan, fails func(*Plan) *Result) (again int, last *Result) {
	for range repetitions {
		if r := fails(p); r != nil {
			again++
			last = r
		}
	}
	return again, last
}

// String is the report.
func (e *Explanation) String() string {
	var b strings.Builder
	p := e.Plan
	fmt.Fprintf(&b, "seed %d: %d relays, %d agents, %d mailboxes, %d devices, window %v, faults for %v\n",
		p.Seed, p.Relays, len(p.Agents), len(p.Mailboxes), len(p.Devices), p.Window, p.Length)
	for i, m := range p.Mailboxes {
		fmt.Fprintf(&b, "  mailbox %d is %s of organization %d, served by agents %v\n", i, m.name, m.organization, m.agents)
	}
	fmt.Fprintf(&b, "it failed again %d times of %d\n", e.Again, repetitions)
	if e.Last == nil {
		return b.String()
	}
	fmt.Fprintf(&b, "what is left of its %d steps and still fails:\n", len(p.Steps))
	for i := range e.Shorter.Steps {
		fmt.Fprintf(&b, "  %v\n", &e.Shorter.Steps[i])
	}
	for _, problem := range e.Last.Problems {
		fmt.Fprintf(&b, "problem %s\n", problem)
	}
	b.WriteString("what happened then:\n")
	for _, line := range e.Last.Trace {
		fmt.Fprintf(&b, "  %s\n", line)
	}
	return b.String()
}
