package postgrestest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
)

// timeout is how long a server may take for anything; machines of tests are
// busy.
const timeout = 60 * time.Second

// nobody and nogroup are Debian's.
const nobody, nogroup = 65534, 65534

// ErrMissing: this machine has no PostgreSQL.
var ErrMissing = errors.New("PostgreSQL is missing: install Debian's package postgresql")

// Private is a PostgreSQL server of one's own, or one that was stopped. Its
// methods may not be called concurrently, save URL and CPU.
type Private struct {
	dir  string // data, socket and log
	port string

	process *exec.Cmd
	ended   chan struct{} // closed when process has
}

var ports atomic.Int64 // part of a socket's name only

// New makes a server with an empty cluster and starts it with these settings
// (name=value) beside those of the package. The caller closes it. ErrMissing.
func New(settings ...string) (*Private, error) {
	p, err := prepare()
	if err != nil {
		return nil, err
	}
	if err := p.create(settings...); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

// create makes the cluster and starts it.
func (p *Private) create(settings ...string) error {
	err := p.run("initdb", "-D", p.data(), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync", "--no-instructions")
	if err != nil {
		return err
	}
	return p.start(settings...)
}

// Missing returns ErrMissing if this machine has no PostgreSQL.
func Missing() error {
	if program("postgres") == "" {
		return ErrMissing
	}
	return nil
}

// prepare makes the directory of a server.
func prepare() (*Private, error) {
	if err := Missing(); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "badgepg") // a socket's path has to be short
	if err != nil {
		return nil, fmt.Errorf("make a directory for PostgreSQL: %w", err)
	}
	p := &Private{dir: dir, port: strconv.FormatInt(5432+ports.Add(1), 10)}
	if os.Geteuid() == 0 {
		if err := os.Chown(dir, nobody, nogroup); err != nil {
			return nil, errors.Join(fmt.Errorf("give PostgreSQL its directory: %w", err), p.Close())
		}
	}
	return p, nil
}

// Close kills the server and removes what it wrote.
func (p *Private) Close() error {
	p.Kill()
	return os.RemoveAll(p.dir)
}

func (p *Private) data() string { return filepath.Join(p.dir, "data") }

// root is another system in a directory, whose PostgreSQL is meant; empty: this
// one. It needs root.
func root() string { return os.Getenv("POSTGRES_ROOT") }

// program returns the path of one of PostgreSQL's programs, of the newest
// version there is; Debian keeps them off the path. Empty: there is none.
func program(name string) string {
	if path, err := exec.LookPath(name); err == nil && root() == "" {
		return path
	}
	found, err := filepath.Glob(root() + "/usr/lib/postgresql/*/bin/" + name)
	if err != nil || len(found) == 0 {
		return ""
	}
	slices.Sort(found)
	return strings.TrimPrefix(found[len(found)-1], root())
}

// command returns one of PostgreSQL's programs, to be run as nobody if we are root.
func (p *Private) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	args = append([]string{program(name)}, args...)
	switch {
	case root() != "": // which sees temporary directories where they are; nobody else sees that
		const script = `dir=$0 root=$1 as=$2; shift 2
			mkdir -p "$root$dir" && mount --rbind "$dir" "$root$dir" && exec chroot --userspec="$as" "$root" "$@"`
		args = append([]string{"unshare", "--mount", "--propagation=slave", "sh", "-c", script, os.TempDir(), root(), fmt.Sprint(nobody, ":", nogroup)}, args...)
	case os.Geteuid() == 0:
		args = append([]string{"setpriv", fmt.Sprint("--reuid=", nobody), fmt.Sprint("--regid=", nogroup), "--clear-groups", "--"}, args...)
	}
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Dir = p.dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + p.dir, "LC_ALL=C"}
	return cmd
}

// run runs a program to its end.
func (p *Private) run(name string, args ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	if out, err := p.command(ctx, name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", name, err, out)
	}
	return nil
}

// start starts a server that does not run and waits until it answers.
func (p *Private) start(settings ...string) error {
	args := []string{"-D", p.data()}
	for _, setting := range append([]string{"listen_addresses=", "unix_socket_directories=" + p.dir, "port=" + p.port, "fsync=off",
		"full_page_writes=off", "shared_buffers=32MB", "max_connections=100", "wal_level=replica", "logging_collector=off"}, settings...) {
		args = append(args, "-c", setting)
	}
	log, err := os.OpenFile(filepath.Join(p.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close() // the process has its own by then
	process := p.command(context.Background(), "postgres", args...)
	process.Stdout, process.Stderr = log, log
	if err := process.Start(); err != nil {
		return fmt.Errorf("start PostgreSQL: %w", err)
	}
	ended := make(chan struct{})
	go func() { // ends with the process
		defer close(ended)
		_ = process.Wait() // how it ends is in the log
	}()
	p.process, p.ended = process, ended
	return p.until("answers", func(ctx context.Context) error {
		conn, err := pgx.Connect(ctx, p.URL("postgres"))
		if err != nil {
			return err
		}
		return conn.Close(ctx)
	})
}

// until waits for a condition of a real process, which no channel tells of.
func (p *Private) until(what string, condition func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	for {
		err := condition(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-p.ended:
			return fmt.Errorf("PostgreSQL ended before it %s:\n%s", what, p.log())
		case <-ctx.Done():
			return fmt.Errorf("PostgreSQL never %s: %w\n%s", what, err, p.log())
		}
	}
}

func (p *Private) log() []byte {
	log, _ := os.ReadFile(filepath.Join(p.dir, "log")) // it only illustrates
	return bytes.TrimSpace(log)
}

// Stop shuts the server down in order, whoever is connected.
func (p *Private) Stop() { p.end(os.Interrupt) }

// Kill ends the server at once, as a crash does.
func (p *Private) Kill() { p.end(os.Kill) }

func (p *Private) end(signal os.Signal) {
	if p.process == nil {
		return
	}
	if signal == os.Kill {
		hold(p.process.Process) // so that it has no more children than are listed
	}
	children := p.children()
	_ = p.process.Process.Signal(signal) // it may have ended
	<-p.ended
	p.process = nil
	// Children of one that was killed end by themselves; before that no other can
	// start on their data.
	for _, child := range children {
		for began := time.Now(); time.Since(began) < timeout && lives(child); {
			time.Sleep(time.Millisecond)
		}
	}
}

// lives reports whether a process has its memory still, as a zombie has not.
func lives(pid string) bool {
	stat, err := os.ReadFile("/proc/" + pid + "/stat") // proc_pid_stat(5): after the name in brackets, the state
	_, rest, _ := strings.Cut(string(stat), ") ")
	return err == nil && !strings.HasPrefix(rest, "Z")
}

// exec runs a statement.
func (p *Private) exec(database, statement string) error {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	conn, err := pgx.Connect(ctx, p.URL(database))
	if err != nil {
		return fmt.Errorf("%s: %w", statement, err)
	}
	defer conn.Close(ctx) // the statement is done
	if _, err := conn.Exec(ctx, statement); err != nil {
		return fmt.Errorf("%s: %w", statement, err)
	}
	return nil
}

// Socket returns the path of the server's socket.
func (p *Private) Socket() string { return filepath.Join(p.dir, ".s.PGSQL."+p.port) }

// URL returns where a database is.
func (p *Private) URL(database string) string { return URLOf(database, p) }

// URLOf returns where a database is that several servers may have, of which the
// one that takes writes is meant.
func URLOf(database string, servers ...*Private) string {
	var hosts, ports []string
	for _, s := range servers {
		hosts, ports = append(hosts, s.dir), append(ports, s.port)
	}
	return "postgres:///" + database + "?" + url.Values{"user": {"postgres"},
		"host": {strings.Join(hosts, ",")}, "port": {strings.Join(ports, ",")}}.Encode()
}
