package registry

import (
	"bufio"
	"database/sql"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"
)

// MigratePathVariable names the environment variable that makes the test binary
// bring the schema of a file up to date with a later one.
const MigratePathVariable = "REGISTRY_TEST_MIGRATE_PATH"

// KillRounds returns how often a process is killed: a few times, or what
// REGISTRY_TEST_KILLS says.
func KillRounds(t *testing.T) int {
	t.Helper()
	value := os.Getenv("REGISTRY_TEST_KILLS")
	if value == "" {
		return 4
	}
	n, err := strconv.Atoi(value)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestKilledMigration kills a process that brings a file up to date, again and
// again at another moment, and finds everything in the file.
func TestKilledMigration(t *testing.T) {
	const n = 5000
	old := newPath(t)
	fill(t, old, n)
	data, err := os.ReadFile(old)
	if err != nil {
		t.Fatal(err)
	}
	random := rand.New(rand.NewPCG(5, 5))
	took, finished := time.Second, 0
	for range KillRounds(t) {
		path := newPath(t)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if killMigration(t, path, time.Duration(random.Int64N(int64(took)))) {
			finished++
			took = time.Since(began)
		}
		wantMigrated(t, path, n)
	}
	t.Logf("%d migrations were done before they were killed", finished)
}

// wantMigrated does what is left to do and finds the n subscriptions.
func wantMigrated(t *testing.T, path string, n int) {
	t.Helper()
	if err := MigrateLater(t.Context(), path); err != nil {
		t.Error(err)
	}
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var found int
	var ok string
	err = db.QueryRowContext(t.Context(), `SELECT count(*), (SELECT * FROM pragma_integrity_check) FROM subscriptions`).Scan(&found, &ok)
	if err != nil || found != n || ok != "ok" {
		t.Errorf("got %d rows, integrity %q, %v; want %d", found, ok, err, n)
	}
}

// killMigration kills the process so long after it begins, or when it is done.
func killMigration(t *testing.T, path string, after time.Duration) (done bool) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self)
	cmd.Env = append(os.Environ(), MigratePathVariable+"="+path)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := make(chan string)
	go func() { // ends with the process
		defer close(lines)
		for scanner := bufio.NewScanner(out); scanner.Scan(); {
			lines <- scanner.Text()
		}
	}()
	if line := <-lines; line != "begins" {
		t.Fatalf("process said %q", line)
	}
	select {
	case line, ok := <-lines:
		if done = ok && line == "done"; !done {
			t.Errorf("process ended by itself")
		}
	case <-time.After(after): // the moment of the kill is chance
	}
	_ = cmd.Process.Kill() // it may have ended
	for range lines {
	}
	_ = cmd.Wait() // killed
	return done
}
