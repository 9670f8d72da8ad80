package simulation

import (
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"
)

// lastLine is what the targets of the Makefile print after everything else.
var lastLine any

func TestMain(m *testing.M) {
	code := m.Run()
	if lastLine != nil {
		printLine(lastLine)
	}
	os.Exit(code)
}

// fixedSeeds is how many seeds every run of the tests has.
const fixedSeeds = 100

// explained is of how many seeds that fail a campaign shows the schedule.
const explained = 3

func TestFixedSeeds(t *testing.T) {
	for part := range uint64(4) {
		t.Run(fmt.Sprint(part), func(t *testing.T) {
			t.Parallel()
			for seed := part + 1; seed <= fixedSeeds; seed += 4 {
				if r := Run(t, NewPlan(seed), Options{}); r.Failed() {
					t.Errorf("seed %d: %q; make simulate SEED=%d shows it", seed, r.Problems, seed)
				}
			}
		})
	}
}

// TestWorker runs seeds for a campaign.
func TestWorker(t *testing.T) {
	if !workerRequested() {
		t.Skip("a campaign starts it")
	}
	out := os.Stdout
	os.Stdout = os.Stderr // what else prints is no result
	if err := work(os.Stdin, out, func(seed uint64) *Result { return Run(t, NewPlan(seed), Options{}) }); err != nil {
		t.Fatal(err)
	}
}

// TestSimulate is `make simulate`: SIMULATE_SEED repeats one seed, else
// SIMULATE_SEEDS new ones are run.
func TestSimulate(t *testing.T) {
	if seed := os.Getenv("SIMULATE_SEED"); seed != "" {
		n, err := strconv.ParseUint(seed, 10, 64)
		if err != nil {
			t.Fatalf("SEED %q is not a number", seed)
		}
		repeat(t, n)
		return
	}
	seeds, err := strconv.Atoi(os.Getenv("SIMULATE_SEEDS"))
	if err != nil {
		t.Skip("make simulate starts it")
	}
	first := uint64(rand.Int64N(1 << 40))
	if from := os.Getenv("SIMULATE_FROM"); from != "" {
		if first, err = strconv.ParseUint(from, 10, 64); err != nil {
			t.Fatalf("FROM %q is not a number", from)
		}
	}
	say := func(format string, args ...any) { _, _ = fmt.Fprintf(os.Stderr, format+"\n", args...) }
	say("seeds %d to %d", first, first+uint64(seeds)-1)
	c := Campaign{Program: os.Args[0], Worker: "TestWorker", First: first, Seeds: seeds, Say: say}
	summary, failed, err := c.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range failed {
		switch {
		case r.Crashed: // it would take this process with it
		case i < explained:
			explain(t, r.Seed, os.Stderr)
		default:
			again, _ := repeated(NewPlan(r.Seed), failsIn(t))
			say("seed %d failed again %d times of %d", r.Seed, again, repetitions)
		}
	}
	lastLine = summary
	if len(failed) > 0 {
		t.Fail()
	}
}

func printLine(v any) {
	line, err := json.Marshal(v)
	if err != nil {
		panic(err) // numbers and strings can be encoded
	}
	fmt.Println(string(line)) //nolint:forbidigo // it is what the target prints
}

// repeat runs a seed with its trace, and explains it if it fails.
func repeat(t *testing.T, seed uint64) {
	began := time.Now()
	o := Options{Verbose: os.Getenv("SIMULATE_VERBOSE") != ""}
	if os.Getenv("SIMULATE_TRACE") != "" || o.Verbose {
		o.Trace = os.Stderr
	}
	r := Run(t, NewPlan(seed), Options{})
	_, _ = fmt.Fprintf(os.Stderr, "seed %d: hash of the trace %016x\n", seed, r.Hash)
	if r.Failed() {
		shorter := explain(t, seed, os.Stderr)
		Run(t, shorter, o)
		t.Fail()
	} else if o.Trace != nil {
		Run(t, NewPlan(seed), o)
	}
	s := &Summary{FirstSeed: seed, Faults: map[string]int{}, Outcomes: map[string]int{}, FailedSeeds: []uint64{}}
	s.add(r)
	s.Seconds = time.Since(began).Seconds()
	lastLine = s
}

// failsIn returns what runs a plan and returns its result if that failed.
func failsIn(t *testing.T) func(*Plan) *Result {
	return func(p *Plan) *Result {
		if r := Run(t, p, Options{}); r.Failed() {
			return r
		}
		return nil
	}
}

// explain runs a seed that failed ten times, says how often it fails again, and
// prints its schedule, shortened as far as it still fails.
func explain(t *testing.T, seed uint64, to io.Writer) *Plan {
	e := Explain(NewPlan(seed), failsIn(t))
	_, _ = fmt.Fprint(to, e) // where it can't be printed, nobody reads it
	return e.Shorter
}
