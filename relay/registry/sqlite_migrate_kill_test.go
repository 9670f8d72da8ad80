package registry

import (
	"bufio"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"
)

// MigratePathVariable names the environment variable that makes the test binary
// open a file and bring its schema up to date.
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
	fillVersion2(t, old, n)
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
		s := open(t, SQLiteConfig{Path: path})
		wantSubscriptions(t, s, n)
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	t.Logf("%d migrations were done before they were killed", finished)
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
