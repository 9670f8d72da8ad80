package simulation

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Campaign runs many seeds, in several processes of the test program itself: a
// run that panics or leaves a goroutine behind takes its process with it, and is
// a failure of its seed.
type Campaign struct {
	// Program is the test program, and Worker the test that calls Work.
	Program, Worker string
	// First is the first seed, of so many.
	First uint64
	Seeds int
	// Repeat has First alone run, Seeds times.
	Repeat bool
	// Processes that run side by side. 0: one for each core.
	Processes int
	// Enough reports whether a failure is the last one that is wanted, and ends the
	// campaign then. It is called for one at a time. nil: none is.
	Enough func(*Result) bool
	// Say is told what goes on. nil: nobody is.
	Say func(format string, args ...any)
}

// Summary is what a campaign found.
type Summary struct {
	Seeds            int            `json:"seeds"`
	FirstSeed        uint64         `json:"firstSeed"`
	SimulatedSeconds int64          `json:"simulatedSeconds"`
	Events           int            `json:"events"`
	Pushes           uint64         `json:"pushes"`
	Faults           map[string]int `json:"faults"`
	Outcomes         map[string]int `json:"outcomes"`
	WrongBadges      int            `json:"wrongBadges"`
	ForeignBadges    int            `json:"foreignBadges"`
	ClientFaults     int            `json:"clientFaults"`
	FailedSeeds      []uint64       `json:"failedSeeds"`
	Seconds          float64        `json:"seconds"`
	CPUSeconds       float64        `json:"cpuSeconds"`
	SeedsPerMinute   float64        `json:"seedsPerMinute"`
}

// The environment that tells a worker its work: seeds on its standard input, one
// a line, and a result in JSON for each on its standard output.
const workerEnv = "SIMULATION_WORKER"

// Run runs the campaign and returns what it found, with the results that failed
// in the order of their seeds. Its error is of running the processes.
func (c *Campaign) Run(ctx context.Context) (*Summary, []*Result, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	began := time.Now()
	processes := c.Processes
	if processes == 0 {
		processes = runtime.NumCPU()
	}
	seeds := make(chan uint64)
	go func() { // ends with ctx or when all are handed out
		defer close(seeds)
		for i := range c.Seeds {
			seed := c.First + uint64(i)
			if c.Repeat {
				seed = c.First
			}
			select {
			case seeds <- seed:
			case <-ctx.Done():
				return
			}
		}
	}()
	s := &Summary{FirstSeed: c.First, Faults: map[string]int{}, Outcomes: map[string]int{}, FailedSeeds: []uint64{}}
	var failed []*Result
	var mu sync.Mutex // guards s and failed
	var workers sync.WaitGroup
	var cpu atomic.Int64
	errs := make([]error, processes)
	for i := range processes {
		workers.Go(func() { // ends with seeds
			errs[i] = c.work(ctx, seeds, &cpu, func(r *Result) {
				mu.Lock()
				defer mu.Unlock()
				s.add(r)
				if !r.Failed() {
					return
				}
				failed = append(failed, r)
				c.say("seed %d: %s", r.Seed, strings.Join(r.Problems, "; "))
				if c.Enough != nil && c.Enough(r) {
					cancel()
				}
			})
		})
	}
	workers.Wait()
	s.Seconds, s.CPUSeconds = time.Since(began).Seconds(), time.Duration(cpu.Load()).Seconds()
	s.SeedsPerMinute = float64(s.Seeds) / s.Seconds * 60
	slices.SortFunc(failed, func(a, b *Result) int { return int(int64(a.Seed) - int64(b.Seed)) })
	slices.Sort(s.FailedSeeds)
	for _, err := range errs {
		if err != nil {
			return s, failed, err
		}
	}
	return s, failed, nil
}

func (c *Campaign) say(format string, args ...any) {
	if c.Say != nil {
		c.Say(format, args...)
	}
}

func (s *Summary) add(r *Result) {
	s.Seeds++
	s.SimulatedSeconds += int64(r.Simulated / time.Second)
	s.Events += r.Events
	s.Pushes += r.Pushes
	s.WrongBadges += r.Wrong
	s.ForeignBadges += r.Foreign
	for _, n := range r.Client {
		s.ClientFaults += n
	}
	for k, n := range r.Faults {
		s.Faults[k] += n
	}
	for k, n := range r.Outcomes {
		s.Outcomes[k] += n
	}
	if r.Failed() {
		s.FailedSeeds = append(s.FailedSeeds, r.Seed)
	}
}

// work gives seeds to a process, and to another one when it dies.
func (c *Campaign) work(ctx context.Context, seeds <-chan uint64, cpu *atomic.Int64, found func(*Result)) error {
	for more := true; more; {
		w, err := c.startWorker(ctx)
		if err != nil {
			return err
		}
		more = w.serve(ctx, seeds, found)
		w.end()
		if state := w.cmd.ProcessState; state != nil {
			cpu.Add(int64(state.UserTime() + state.SystemTime()))
		}
	}
	return nil
}

// worker is a process that runs seeds.
type worker struct {
	cmd    *exec.Cmd
	in     io.WriteCloser
	out    *bufio.Scanner
	stderr *os.File
	left   int // seeds until it is replaced, so that what runs leave behind does not add up
}

// seedsPerWorker is after how many seeds a process is replaced.
const seedsPerWorker = 500

// maxLine is the longest result in JSON.
const maxLine = 16 << 20

func (c *Campaign) startWorker(ctx context.Context) (*worker, error) {
	w := &worker{cmd: exec.CommandContext(ctx, c.Program, "-test.run=^"+c.Worker+"$", "-test.timeout=0"), left: seedsPerWorker}
	// One goroutine runs at a time, so that a seed repeats itself more often.
	w.cmd.Env = append(os.Environ(), workerEnv+"=1", "GOMAXPROCS=1")
	var err error
	if w.stderr, err = os.CreateTemp("", "simulation-*.log"); err != nil {
		return nil, err
	}
	w.cmd.Stderr = w.stderr
	if w.in, err = w.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := w.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	w.out = bufio.NewScanner(out)
	w.out.Buffer(nil, maxLine)
	if err := w.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start worker: %w", err)
	}
	return w, nil
}

// serve has the process run seeds; false: there are no more.
func (w *worker) serve(ctx context.Context, seeds <-chan uint64, found func(*Result)) (more bool) {
	for ; w.left > 0; w.left-- {
		seed, ok := <-seeds
		if !ok {
			return false
		}
		r := w.run(seed)
		if ctx.Err() != nil {
			return false
		}
		found(r)
		if r.Crashed {
			return ctx.Err() == nil
		}
	}
	return ctx.Err() == nil
}

// hangTime is after which a seed is taken for one that never ends, because something
// goes on and on in one instant of simulated time. A seed takes a tenth of a second.
const hangTime = 2 * time.Minute

// run has the process run a seed. A process that dies is a failure of the seed, as is
// one that has to be ended.
func (w *worker) run(seed uint64) *Result {
	hangs := time.AfterFunc(hangTime, func() {
		_ = w.cmd.Process.Signal(syscall.SIGQUIT) // it says where everything is
	})
	defer hangs.Stop()
	if _, err := fmt.Fprintln(w.in, seed); err == nil {
		for w.out.Scan() {
			r := &Result{}
			if json.Unmarshal(w.out.Bytes(), r) == nil && r.Seed == seed {
				return r
			}
		}
	}
	_ = w.cmd.Wait() // it is dead, and its output says why
	return &Result{Seed: seed, Crashed: true, Problems: []string{"the process died: " + w.lastWords()}}
}

// lastWordsSize is how much of a dead process's output is shown.
const lastWordsSize = 4000

func (w *worker) lastWords() string {
	data, err := os.ReadFile(w.stderr.Name())
	if err != nil {
		return err.Error()
	}
	if len(data) == 0 {
		return "without a word"
	}
	return string(data[:min(len(data), lastWordsSize)])
}

func (w *worker) end() {
	_ = w.in.Close() // ends the process
	_ = w.cmd.Wait() // what it had to say came with its results
	_ = w.stderr.Close()
	_ = os.Remove(w.stderr.Name())
}

// workerRequested reports whether this process is a worker.
func workerRequested() bool { return os.Getenv(workerEnv) != "" }

// work runs the seeds that come in, and prints a result for each.
func work(in io.Reader, out io.Writer, run func(seed uint64) *Result) error {
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		seed, err := strconv.ParseUint(strings.TrimSpace(lines.Text()), 10, 64)
		if err != nil {
			return fmt.Errorf("read seed: %w", err)
		}
		if _, err := fmt.Fprintln(out, run(seed).MarshalLine()); err != nil {
			return err
		}
	}
	return lines.Err()
}
