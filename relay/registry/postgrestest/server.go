package postgrestest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
)

// Server is a Private that ends with a test, which fails where the server does.
type Server struct {
	*Private
	t testing.TB
}

var databases atomic.Int64

// Need skips a test where there is no PostgreSQL, and fails it where CI is set.
func Need(t testing.TB) {
	t.Helper()
	err := Missing()
	if err != nil && os.Getenv("CI") != "" {
		t.Fatal(err)
	}
	if err != nil {
		t.Skip(err, "(make test-deps does as root)")
	}
}

// Start makes a server and starts it; it ends with the test, which needs it as
// Need says.
func Start(t testing.TB) *Server {
	t.Helper()
	return belongs(t, New)
}

// belongs makes a server the test's.
func belongs(t testing.TB, create func(settings ...string) (*Private, error)) *Server {
	t.Helper()
	Need(t)
	p, err := create()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() }) // what is left of a directory fails nothing
	return &Server{Private: p, t: t}
}

// Start starts a server that was stopped and waits until it answers.
func (s *Server) Start(settings ...string) {
	s.t.Helper()
	s.ok(s.start(settings...))
}

func (s *Server) ok(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// URL returns where a database is that several servers may have, of which the
// one that takes writes is meant.
func URL(database string, servers ...*Server) string {
	var all []*Private
	for _, s := range servers {
		all = append(all, s.Private)
	}
	return URLOf(database, all...)
}

// Database makes a new, empty database with options of CREATE DATABASE, and
// returns its name.
func (s *Server) Database(options ...string) string {
	s.t.Helper()
	name := fmt.Sprint("test", databases.Add(1))
	s.Exec("postgres", "CREATE DATABASE "+name+" "+strings.Join(options, " "))
	return name
}

// Tablespace makes a place for databases in a directory, and returns its name.
func (s *Server) Tablespace(dir string) string {
	s.t.Helper()
	place := filepath.Join(dir, "tablespace")
	if err := os.Mkdir(place, 0o700); err != nil {
		s.t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		if err := errors.Join(os.Chmod(dir, 0o755), os.Chown(place, nobody, nogroup)); err != nil {
			s.t.Fatal(err)
		}
	}
	name := fmt.Sprint("space", databases.Add(1))
	s.Exec("postgres", "CREATE TABLESPACE "+name+" LOCATION '"+place+"'")
	return name
}

// Exec runs a statement.
func (s *Server) Exec(database, statement string) {
	s.t.Helper()
	s.ok(s.exec(database, statement))
}

// Dump backs a database up with pg_dump and restores that into another, empty one.
func (s *Server) Dump(from, into string) {
	s.t.Helper()
	file := filepath.Join(s.dir, from+".dump")
	at := []string{"-h", s.dir, "-p", s.port, "-U", "postgres"}
	s.ok(s.run("pg_dump", append(at, "--format=custom", "--file="+file, from)...))
	s.ok(s.run("pg_restore", append(at, "--no-owner", "--exit-on-error", "--dbname="+into, file)...))
}
