package postgrestest

import (
	"bytes"
	"context"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// patience is how long a server may take for anything; machines of tests are
// busy.
const patience = 60 * time.Second

// nobody and nogroup are Debian's.
const nobody, nogroup = 65534, 65534

// Server is a PostgreSQL server, or one that was stopped.
type Server struct {
	t    testing.TB
	dir  string // data, socket and log
	port string

	process *exec.Cmd
	ended   chan struct{} // closed when process has
}

var (
	databases atomic.Int64
	ports     atomic.Int64 // part of a socket's name only
)

// Start makes a server and starts it; it ends with the test. Without PostgreSQL
// the test is skipped, and fails where CI is set.
func Start(t testing.TB) *Server {
	t.Helper()
	s := newServer(t)
	s.run("initdb", "-D", s.data(), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync", "--no-instructions")
	s.Start()
	return s
}

func newServer(t testing.TB) *Server {
	t.Helper()
	if program("postgres") == "" {
		if os.Getenv("CI") != "" {
			t.Fatal("PostgreSQL is missing: install Debian's package postgresql")
		}
		t.Skip("needs PostgreSQL: install Debian's package postgresql (make test-deps does as root)")
	}
	dir, err := os.MkdirTemp("", "badgepg") // a socket's path has to be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if os.Geteuid() == 0 {
		if err := os.Chown(dir, nobody, nogroup); err != nil {
			t.Fatal(err)
		}
	}
	s := &Server{t: t, dir: dir, port: strconv.FormatInt(5432+ports.Add(1), 10)}
	t.Cleanup(s.Kill)
	return s
}

func (s *Server) data() string { return filepath.Join(s.dir, "data") }

// program returns the path of one of PostgreSQL's programs, of the newest
// version there is; Debian keeps them off the path. Empty: there is none.
func program(name string) string {
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/" + name)
	if err != nil || len(found) == 0 {
		return ""
	}
	slices.Sort(found)
	return found[len(found)-1]
}

// command returns one of PostgreSQL's programs, to be run as nobody if we are root.
func (s *Server) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	args = append([]string{program(name)}, args...)
	if os.Geteuid() == 0 {
		args = append([]string{"setpriv", fmt.Sprint("--reuid=", nobody), fmt.Sprint("--regid=", nogroup), "--clear-groups", "--"}, args...)
	}
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Dir = s.dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + s.dir, "LC_ALL=C"}
	return cmd
}

// run runs a program to its end.
func (s *Server) run(name string, args ...string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if out, err := s.command(ctx, name, args...).CombinedOutput(); err != nil {
		s.t.Fatalf("%s: %v\n%s", name, err, out)
	}
}

// Start starts a server that was stopped and waits until it answers.
func (s *Server) Start(settings ...string) {
	s.t.Helper()
	args := []string{"-D", s.data()}
	for _, setting := range append([]string{"listen_addresses=", "unix_socket_directories=" + s.dir, "port=" + s.port, "fsync=off",
		"full_page_writes=off", "shared_buffers=32MB", "max_connections=100", "wal_level=replica", "logging_collector=off"}, settings...) {
		args = append(args, "-c", setting)
	}
	log, err := os.OpenFile(filepath.Join(s.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		s.t.Fatal(err)
	}
	defer log.Close()
	process := s.command(context.Background(), "postgres", args...)
	process.Stdout, process.Stderr = log, log
	if err := process.Start(); err != nil {
		s.t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { // ends with the process
		defer close(ended)
		_ = process.Wait() // how it ends is in the log
	}()
	s.process, s.ended = process, ended
	s.until("answers", func(ctx context.Context) error {
		select {
		case <-ended:
			s.t.Fatalf("PostgreSQL ended:\n%s", s.log())
		default:
		}
		conn, err := pgx.Connect(ctx, s.URL("postgres"))
		if err != nil {
			return err
		}
		return conn.Close(ctx)
	})
}

// until waits for a condition of a real process, which no channel tells of.
func (s *Server) until(what string, condition func(ctx context.Context) error) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for {
		err := condition(ctx)
		if err == nil {
			return
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			s.t.Fatalf("PostgreSQL never %s: %v\n%s", what, err, s.log())
		}
	}
}

func (s *Server) log() []byte {
	log, _ := os.ReadFile(filepath.Join(s.dir, "log")) // it only illustrates
	return bytes.TrimSpace(log)
}

// Stop shuts the server down in order, whoever is connected.
func (s *Server) Stop() { s.end(os.Interrupt) }

// Kill ends the server at once, as a crash does.
func (s *Server) Kill() { s.end(os.Kill) }

func (s *Server) end(signal os.Signal) {
	if s.process == nil {
		return
	}
	_ = s.process.Process.Signal(signal) // it may have ended
	<-s.ended
	s.process = nil
}

// URL returns where a database is.
func (s *Server) URL(database string) string { return URL(database, s) }

// URL returns where a database is that several servers may have, of which the
// one that takes writes is meant.
func URL(database string, servers ...*Server) string {
	var hosts, ports []string
	for _, s := range servers {
		hosts, ports = append(hosts, s.dir), append(ports, s.port)
	}
	return "postgres:///" + database + "?" + url.Values{"user": {"postgres"},
		"host": {strings.Join(hosts, ",")}, "port": {strings.Join(ports, ",")}}.Encode()
}

// Database makes a new, empty database and returns its name.
func (s *Server) Database() string {
	s.t.Helper()
	name := fmt.Sprint("test", databases.Add(1))
	s.Exec("postgres", "CREATE DATABASE "+name)
	return name
}

// Exec runs a statement.
func (s *Server) Exec(database, statement string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, err := pgx.Connect(ctx, s.URL(database))
	if err != nil {
		s.t.Fatal(err)
	}
	defer conn.Close(ctx)
	if _, err := conn.Exec(ctx, statement); err != nil {
		s.t.Fatalf("%s: %v", statement, err)
	}
}

// Dump backs a database up with pg_dump and restores that into another, empty one.
func (s *Server) Dump(from, into string) {
	s.t.Helper()
	file := filepath.Join(s.dir, from+".dump")
	at := []string{"-h", s.dir, "-p", s.port, "-U", "postgres"}
	s.run("pg_dump", append(at, "--format=custom", "--file="+file, from)...)
	s.run("pg_restore", append(at, "--no-owner", "--exit-on-error", "--dbname="+into, file)...)
}
