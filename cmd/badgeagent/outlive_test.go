//go:build unix

package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// asProgram, set in the environment, makes the test binary the program itself.
const asProgram = "BADGEAGENT_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
	}
	os.Exit(m.Run())
}

// TestOutlivesItsLog has the reader of its log end, or not read at all, while the
// mail server's absence gives the daemon something to say.
func TestOutlivesItsLog(t *testing.T) {
	for _, test := range []struct {
		name string
		read bool // the log, until the daemon serves; then its reader ends
	}{{"the log's reader ends", true}, {"the log's reader is stuck", false}} {
		t.Run(test.name, func(t *testing.T) {
			r := newFakeRelay(t)
			r.devices["ann@fabrikam.com"] = "ab"
			c := newConsole(t)
			c.ok("cert", "ensure", "--organization", "fabrikam.com")
			r.enrol(filepath.Join(c.dir, "OAuthCert.cer"))
			c.ok("auth-server", "set", "--metadata-url", r.web, "--ca", r.ca)
			c.ok("proxy", "enable", "--organization", "fabrikam.com")
			password := filepath.Join(c.dir, "password")
			must(t, os.WriteFile(password, []byte("secret\n"), 0o600))
			file := filepath.Join(c.dir, "badgeagent.yaml")
			must(t, os.WriteFile(file, []byte("imap: {address: \"127.0.0.1:1\", master_user: agent, master_password_file: "+password+"}\n"+
				"ops: {address: \"127.0.0.1:0\"}\nlog: {level: debug}\ndrain_budget: 1s\n"), 0o600))
			log, end, err := os.Pipe()
			must(t, err)
			defer log.Close() // nobody reads it any more
			for n := 1; n > 0 && !test.read; {
				must(t, end.SetWriteDeadline(time.Now().Add(50*time.Millisecond)))
				n, _ = end.Write(make([]byte, 4096)) // until it is full
			}
			exe, err := os.Executable()
			must(t, err)
			ctx, kill := context.WithTimeout(t.Context(), 20*time.Second)
			defer kill()
			cmd := exec.CommandContext(ctx, exe, "serve", "--config", file, "--dir", c.dir)
			cmd.Env, cmd.Stdout, cmd.Stderr = append(os.Environ(), asProgram+"=1"), end, end
			must(t, cmd.Start())
			_ = end.Close() // the daemon has its own
			select {
			case <-r.watched: // it serves
			case <-ctx.Done():
				t.Fatal("the daemon never came to the relay")
			}
			if test.read {
				_ = log.Close()
			}
			for range 5 {
				must(t, cmd.Process.Signal(syscall.SIGHUP)) // a line of the log
			}
			must(t, cmd.Process.Signal(syscall.SIGTERM))
			if err := cmd.Wait(); err != nil {
				t.Errorf("the daemon ended with %v, want 0", err)
			}
		})
	}
}
