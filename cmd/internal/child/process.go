package child

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// grace is how long a process may take to end in good order before it is
// killed, unless Stop's caller is less patient: longer than a relay's drain.
const grace = 40 * time.Second

// Command is what to run.
type Command struct {
	Name string // for messages
	Path string
	Args []string
	Env  []string  // added to this process's
	Out  io.Writer // takes standard output; nil: nobody does
	Log  io.Writer // takes standard error; nil: its end is kept for messages
}

// Process is a running child. Its methods are safe for concurrent use.
type Process struct {
	name string
	cmd  *exec.Cmd
	last *tail         // the end of its standard error
	done chan struct{} // closed when it has ended
	err  error         // why it ended; set before done is closed
}

// start runs c. stdin may be nil.
func start(c Command, stdin io.Reader) (*Process, error) {
	p := &Process{name: c.Name, last: &tail{}, done: make(chan struct{})}
	p.cmd = exec.Command(c.Path, c.Args...)
	p.cmd.Stdin, p.cmd.Stdout = stdin, c.Out
	p.cmd.Env = append(os.Environ(), c.Env...)
	p.cmd.Stderr = p.last
	if c.Log != nil {
		p.cmd.Stderr = io.MultiWriter(p.last, c.Log)
	}
	p.cmd.SysProcAttr = ownGroup()
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", c.Name, err)
	}
	go func() { // ends with the process; Stop waits for it
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// PID returns the process's id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Failure says how the process ended, and what it said last; nil while it
// runs.
func (p *Process) Failure() error {
	select {
	case <-p.done:
	default:
		return nil
	}
	how := "with exit code 0"
	if p.err != nil {
		how = p.err.Error()
	}
	return fmt.Errorf("%s ended (%s): %s", p.name, how, p.last)
}

// AwaitOK asks for the page at url, each time after pause, until the answer is 200 OK:
// nothing tells when a process of its own is ready but asking it. An error says that
// the process has ended, or that ctx is done.
func (p *Process) AwaitOK(ctx context.Context, url string, pause time.Duration) error {
	ticker := time.NewTicker(pause)
	defer ticker.Stop()
	for !isOK(ctx, url) {
		select {
		case <-ticker.C:
		case <-p.done:
			return p.Failure()
		case <-ctx.Done():
			return fmt.Errorf("%s did not become ready: %w", p.name, ctx.Err())
		}
	}
	return nil
}

func isOK(ctx context.Context, url string) bool {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return false
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return false
	}
	defer answer.Body.Close() // its status is enough
	return answer.StatusCode == http.StatusOK
}

// Signal sends sig; to a process that has ended it is nothing.
func (p *Process) Signal(sig os.Signal) error {
	if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("signal %s: %w", p.name, err)
	}
	return nil
}

// Kill ends the process at once and waits for its end.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill() // it has ended, or it ends now
	<-p.done
}

// Stop asks the process to end, waits, and kills it when ctx is done or the
// grace is over. It returns an error unless the process ended by itself with
// exit code 0.
func (p *Process) Stop(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, grace)
	defer cancel()
	if err := p.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-p.done:
	case <-ctx.Done():
		p.Kill()
		return fmt.Errorf("%s did not end when asked and was killed: %s", p.name, p.last)
	}
	if p.err != nil {
		return p.Failure()
	}
	return nil
}

// Group is a set of processes that end together. Safe for concurrent use.
type Group struct {
	mu      sync.Mutex // guards what follows
	members []*Process
}

// Start runs a program.
func (g *Group) Start(c Command) (*Process, error) {
	p, err := start(c, nil)
	if err == nil {
		g.add(p)
	}
	return p, err
}

func (g *Group) add(p *Process) {
	g.mu.Lock()
	g.members = append(g.members, p)
	g.mu.Unlock()
}

// Close kills what still runs, the youngest first, and waits for it. Whoever
// wants an orderly end calls Process.Stop before.
func (g *Group) Close() {
	g.mu.Lock()
	members := g.members
	g.members = nil
	g.mu.Unlock()
	for i := len(members) - 1; i >= 0; i-- {
		members[i].Kill()
	}
}

// tail keeps the last of what is written to it. Safe for concurrent use.
type tail struct {
	mu sync.Mutex
	b  []byte
}

// tailSize is enough for a stack trace's beginning and a few log lines.
const tailSize = 16 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, p...)
	if over := len(t.b) - tailSize; over > 0 {
		t.b = append(t.b[:0], t.b[over:]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(bytes.TrimSpace(t.b)) == 0 {
		return "it said nothing"
	}
	return string(bytes.TrimSpace(t.b))
}
