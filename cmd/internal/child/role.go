package child

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/rpc"
	"os"
)

// roleVariable names the role in the environment of a process that is one.
const roleVariable = "BADGE_ROLE"

// service is the name under which a role answers.
const service = "Role"

// Roles are what a program may be beside itself, by name.
type Roles map[string]func(in, out *os.File) error

// Run runs this process as a role and ends it, if another has started it as one
// (StartAs). A program's main and a test's TestMain call it first.
func (all Roles) Run() {
	name := os.Getenv(roleVariable)
	if name == "" {
		return
	}
	err := fmt.Errorf("there is no role %q", name)
	if run := all[name]; run != nil {
		err = run(os.Stdin, os.Stdout)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// Role is this program again, in another role.
type Role struct {
	*Process
	client *rpc.Client
}

// StartAs runs this program as a role, which is to call Serve, and has it start with its
// configuration, which is the question of its method Start.
func StartAs(ctx context.Context, g *Group, name string, config any) (*Role, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	// Real pipes, so that no goroutine copies and the role sees when we end.
	stdin, questions, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("open a pipe to %s: %w", name, err)
	}
	answers, stdout, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open a pipe from %s: %w", name, err), stdin.Close(), questions.Close())
	}
	p, err := start(Command{Name: name, Path: self, Env: []string{roleVariable + "=" + name}, Args: []string{name}, Out: stdout}, stdin)
	_, _ = stdin.Close(), stdout.Close() // the child has its own
	if err != nil {
		return nil, errors.Join(err, questions.Close(), answers.Close())
	}
	g.add(p)
	r := &Role{Process: p, client: rpc.NewClient(pipe{answers, questions})}
	return r, r.Ask(ctx, "Start", config, nil)
}

// Ask calls a method of the role; with a nil answer, what it answers is passed over.
// Ask returns ctx's error when ctx is done first; the answer is then lost, and written
// to no more once the process has ended.
func (r *Role) Ask(ctx context.Context, method string, question, answer any) error {
	call := r.client.Go(service+"."+method, question, answer, make(chan *rpc.Call, 1))
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-call.Done:
	}
	if call.Error == nil {
		return nil
	}
	if errors.Is(call.Error, rpc.ErrShutdown) || errors.Is(call.Error, io.ErrUnexpectedEOF) || errors.Is(call.Error, io.EOF) {
		<-r.done // its pipes have ended
		return r.Failure()
	}
	return fmt.Errorf("%s: %s: %w", r.name, method, call.Error)
}

// AskFor is Ask with the answer as a result, which is zero with an error: an
// answer that nobody waited for may still be written to.
func AskFor[T any](ctx context.Context, r *Role, method string, question any) (T, error) {
	var answer, none T
	if err := r.Ask(ctx, method, question, &answer); err != nil {
		return none, err
	}
	return answer, nil
}

// End closes the role's standard input, which makes Serve return, and waits.
func (r *Role) End() {
	_ = r.client.Close() // nothing is under way
	<-r.done
}

// Serve answers questions on in and out until in ends. The methods of role are
// those that net/rpc takes.
func Serve(in io.ReadCloser, out io.WriteCloser, role any) error {
	server := rpc.NewServer()
	if err := server.RegisterName(service, role); err != nil {
		return fmt.Errorf("register role: %w", err)
	}
	server.ServeConn(pipe{in, out})
	return nil
}

// pipe is both directions of a conversation.
type pipe struct {
	io.ReadCloser
	w io.WriteCloser
}

func (p pipe) Write(b []byte) (int, error) { return p.w.Write(b) }

func (p pipe) Close() error { return errors.Join(p.w.Close(), p.ReadCloser.Close()) }
