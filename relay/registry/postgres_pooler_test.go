package registry_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"badgerelay/relay/freeport"
	"badgerelay/relay/registry"
	"badgerelay/relay/registry/postgrestest"
)

// pooler starts a PgBouncer before a server, with a pool mode, and returns the
// URL of a database through it.
func pooler(t *testing.T, server *postgrestest.Server, database, mode string) string {
	t.Helper()
	program, err := exec.LookPath("pgbouncer")
	if err != nil {
		program = "/usr/sbin/pgbouncer"
	}
	if _, err := os.Stat(program); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err, "(make test-deps brings it as root)")
	}
	direct, err := pgx.ParseConfig(server.URL(database))
	if err != nil {
		t.Fatal(err)
	}
	address, err := freeport.Address() // PgBouncer has to be told a port
	if err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	users, config := filepath.Join(dir, "users"), filepath.Join(dir, "pgbouncer.ini")
	text := fmt.Sprintf("[databases]\n* = host=%s port=%d user=postgres\n[pgbouncer]\nlisten_addr=127.0.0.1\nlisten_port=%s\nunix_socket_dir=\nauth_type=any\nauth_file=%s\npool_mode=%s\n",
		direct.Host, direct.Port, port, users, mode)
	if err := errors.Join(os.WriteFile(users, nil, 0o644), os.WriteFile(config, []byte(text), 0o644), os.Chmod(dir, 0o755), os.Chmod(filepath.Dir(dir), 0o755)); err != nil {
		t.Fatal(err)
	}
	args := []string{program, "-q", config}
	if os.Geteuid() == 0 { // it refuses to be root
		args = append([]string{"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"}, args...)
	}
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), args[0], args[1:]...)
	var log strings.Builder
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()
		if t.Failed() {
			t.Log(log.String())
		}
	})
	url := fmt.Sprintf("postgres://postgres@%s/%s?sslmode=disable", address, database)
	eventually(t, "the pooler answers", func() error {
		conn, err := pgx.Connect(t.Context(), url)
		if err != nil {
			return err
		}
		return conn.Close(t.Context())
	})
	return url
}

// TestPostgresThroughAPooler refuses one that lends sessions by transaction, and
// works through one that leaves connections theirs.
func TestPostgresThroughAPooler(t *testing.T) {
	server := postgrestest.Start(t)
	for _, mode := range []string{"transaction", "statement"} {
		c := registry.PostgresConfig{URL: pooler(t, server, server.Database(), mode)}
		_, err := registry.OpenPostgres(t.Context(), c)
		if invalid, ok := errors.AsType[*registry.InvalidError](err); mode == "transaction" && (!ok || !strings.Contains(invalid.Detail, "pool_mode=session")) || err == nil {
			t.Errorf("pool mode %s: got %v, want an *InvalidError that says what to do", mode, err)
		}
		if _, err := c.Check(t.Context()); err == nil {
			t.Errorf("pool mode %s: the check finds nothing", mode)
		}
	}
	c := registry.PostgresConfig{URL: pooler(t, server, server.Database(), "session")}
	if version, err := c.Check(t.Context()); err != nil || !strings.HasPrefix(version, "PostgreSQL ") {
		t.Errorf("pool mode session: checked %q, %v", version, err)
	}
	r := join(t, c, false)
	org := r.org()
	subscribe(t, r, org, 1)
	r.learns("its own", is(registry.ChangeSubscribed, numbered(0, 1).Mailbox))
}
