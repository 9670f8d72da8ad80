package process

import (
	"bytes"
	"io"
	"log"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/grpclog"
)

// Bounds of an Output. Ours: a reader that keeps up is never noticed, and one
// that does not costs the process a hundredth of a second, once.
const (
	outputWaiting  = 1 << 20               // bytes that may wait to be written
	outputTimeout  = 10 * time.Millisecond // how long a write waits until it is out
	outputFarewell = time.Second           // how long Flush does
)

// Output is where a process says things, line by line: standard output or error.
// Until Outlive it is what it writes to: a command that lists much waits for its
// reader.
//
// A daemon does not. Its reader may be slow, stuck or gone: a pipe that nobody
// reads, a full disk. A line is out when Write returns, as long as the reader
// keeps up; of one that does not, nobody waits until it has caught up. Lines
// beyond outputWaiting, and those that cannot be written, are dropped and
// counted, and a line in their place says how many (NewLogger).
//
// It is safe for concurrent use.
type Output struct {
	w        io.Writer
	outlives atomic.Bool                              // Outlive was called
	tell     atomic.Pointer[func(dropped int) []byte] // makes the line that says how many are missing; nil: nothing does
	dropped  atomic.Int64

	mu      sync.Mutex // guards what follows; a few memory operations
	queue   []outputLine
	size    int           // bytes waiting
	missing int           // lines dropped since the last that waits
	writing bool          // a goroutine writes
	late    bool          // the reader does not keep up: nobody waits
	idle    chan struct{} // closed when nothing waits any more

	// Of the goroutine that writes; there is one at a time.
	untold int  // lines missing here that nothing has told of
	torn   bool // the last line is not whole
}

// outputLine is a line, and how many are missing before it.
type outputLine struct {
	text    []byte
	missing int
}

// NewOutput returns an Output that writes to w, one line at a time.
func NewOutput(w io.Writer) *Output { return &Output{w: w} }

// Standard returns what a program is to use instead of os.Stdout and os.Stderr.
// Libraries that speak to standard error by themselves go the same way. Flush
// both before the program ends.
func Standard() (stdout, stderr *Output) {
	stdout, stderr = NewOutput(os.Stdout), NewOutput(os.Stderr)
	log.SetOutput(stderr)
	grpclog.SetLoggerV2(grpclog.NewLoggerV2(io.Discard, io.Discard, stderr))
	return stdout, stderr
}

// Outlive has a daemon go on without the readers of these, those of them that are
// an Output or hold one (Unwrap), and without the reader of a pipe: writing to one fails with an
// error. On standard output and error it would end the program otherwise, in a
// way that systemd takes for success.
func Outlive(outputs ...io.Writer) {
	// Not signal.Ignore: the programs that this one starts would inherit that.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	for _, w := range outputs {
		if inside, ok := w.(interface{ Unwrap() io.Writer }); ok {
			w = inside.Unwrap()
		}
		if o, ok := w.(*Output); ok {
			o.outlives.Store(true)
		}
	}
}

// Write implements io.Writer. After Outlive it does not fail.
func (o *Output) Write(line []byte) (int, error) {
	if !o.outlives.Load() {
		return o.w.Write(line)
	}
	idle := o.put(line)
	if idle == nil {
		return len(line), nil
	}
	timer := time.NewTimer(outputTimeout)
	defer timer.Stop()
	select {
	case <-idle:
	case <-timer.C:
		o.mu.Lock()
		o.late = o.writing
		o.mu.Unlock()
	}
	return len(line), nil
}

// put has the line written, or drops it. It returns what is closed when it is
// out, nil where nobody is to wait.
func (o *Output) put(line []byte) (idle <-chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.size+len(line) > outputWaiting {
		o.dropped.Add(1)
		o.missing++
		return nil
	}
	o.queue = append(o.queue, outputLine{bytes.Clone(line), o.missing})
	o.size += len(line)
	o.missing = 0
	if !o.writing {
		o.writing, o.idle = true, make(chan struct{})
		go o.write() // ends when nothing waits; while its reader is stuck, with the process
	}
	if o.late {
		return nil
	}
	return o.idle
}

func (o *Output) write() {
	for {
		line, more := o.next()
		if !more {
			return
		}
		o.untold += line.missing
		told := o.told()
		if line.text == nil || told && o.say(line.text) {
			continue
		}
		o.dropped.Add(1)
		o.untold++
	}
}

// told tells of the lines that are missing, and reports whether nothing is untold.
func (o *Output) told() bool {
	tell := o.tell.Load()
	if tell != nil && o.untold > 0 && !o.say((*tell)(o.untold)) {
		return false
	}
	o.untold = 0
	return true
}

// next takes the first line that waits; one without text tells of lines that are missing
// after the last.
func (o *Output) next() (line outputLine, more bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.queue) == 0 && o.missing > 0 {
		line.missing, o.missing = o.missing, 0
		return line, true
	}
	if len(o.queue) == 0 {
		o.writing, o.late = false, false
		close(o.idle)
		return line, false
	}
	line = o.queue[0]
	o.queue[0] = outputLine{}
	o.queue = o.queue[1:]
	o.size -= len(line.text)
	return line, true
}

// say writes a line, and reports whether it is out. After one that was cut, the
// next begins on a line of its own.
func (o *Output) say(line []byte) bool {
	if o.torn {
		if _, err := o.w.Write([]byte{'\n'}); err != nil {
			return false
		}
		o.torn = false
	}
	n, err := o.w.Write(line)
	o.torn = err != nil && n > 0
	return err == nil
}

// Flush waits until everything is out, at most a second.
func (o *Output) Flush() {
	o.mu.Lock()
	idle, writing := o.idle, o.writing
	o.mu.Unlock()
	if !writing {
		return
	}
	farewell := time.NewTimer(outputFarewell)
	defer farewell.Stop()
	select {
	case <-idle:
	case <-farewell.C: // whoever should read it does not
	}
}

// DroppedLines is a metric of how many lines of the log were dropped. Only an
// Output drops any.
func DroppedLines(log io.Writer) prometheus.Collector {
	return prometheus.NewCounterFunc(prometheus.CounterOpts{
		Name: "log_lines_dropped_total", Help: "Lines of the log that were dropped because they could not be written, or not in time.",
	}, func() float64 {
		if o, ok := log.(*Output); ok {
			return float64(o.dropped.Load())
		}
		return 0
	})
}
