package clock

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// program prints, for each line it reads, what its clock says, how long it has
// run by the difference of two times, and by that of their texts.
const program = `package main

import (
	"os"
	"time"
)

func main() {
	began, line := time.Now(), make([]byte, 1)
	for {
		if n, _ := os.Stdin.Read(line); n == 0 {
			return
		}
		now := time.Now()
		println(now.Unix(), now.Sub(began).Milliseconds(), now.Round(0).Sub(began.Round(0)).Milliseconds())
	}
}
`

func TestAProgramsClockIsStepped(t *testing.T) {
	dir := t.TempDir()
	overlay, err := Overlay(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	source, binary := filepath.Join(dir, "main.go"), filepath.Join(dir, "program")
	if err := os.WriteFile(source, []byte(program), 0o600); err != nil {
		t.Fatal(err)
	}
	build := exec.CommandContext(t.Context(), "go", "build", "-overlay", overlay, "-o", binary, source)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v: %s", err, out)
	}
	c, err := Create(filepath.Join(dir, "clock"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	read := run(t, binary, c.Environment())
	for _, ahead := range []time.Duration{0, 2 * time.Hour, -90 * time.Second, 0} {
		if err := c.Step(ahead); err != nil {
			t.Fatal(err)
		}
		got := read()
		if off := time.Unix(got[0], 0).Sub(time.Now().Add(ahead)).Abs(); off > 5*time.Second {
			t.Errorf("stepped by %v, the clock is %v beside", ahead, off)
		}
		if got[1] < 0 || got[1] > 60_000 {
			t.Errorf("stepped by %v, %d ms have passed by the monotonic clock", ahead, got[1])
		}
		if beside := time.Duration(got[2]-got[1])*time.Millisecond - ahead; beside.Abs() > time.Second {
			t.Errorf("stepped by %v, the clock moved %v beside that", ahead, beside)
		}
	}
	plain := run(t, binary, nil)
	if got := plain(); time.Since(time.Unix(got[0], 0)).Abs() > 5*time.Second {
		t.Error("without a clock of its own, the program has another than the system's")
	}
}

// run starts the program and returns what asks it.
func run(t *testing.T, binary string, environment []string) func() [3]int64 {
	t.Helper()
	p := exec.Command(binary)
	p.Env = append(os.Environ(), environment...)
	in, err := p.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := p.StderrPipe() // println writes there
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close() // ends it
		if err := p.Wait(); err != nil {
			t.Errorf("the program ended: %v", err)
		}
	})
	lines := bufio.NewScanner(out)
	return func() (got [3]int64) {
		t.Helper()
		if _, err := in.Write([]byte("\n")); err != nil || !lines.Scan() {
			t.Fatalf("ask the program: %v, %v", err, lines.Err())
		}
		for i, field := range strings.Fields(lines.Text()) {
			if got[i], err = strconv.ParseInt(field, 10, 64); err != nil {
				t.Fatalf("the program said %q", lines.Text())
			}
		}
		return got
	}
}

func TestAnotherToolchainIsRefused(t *testing.T) {
	for _, text := range []string{"", "func Now() Time {\n\treturn other()\n}\n", nowOfSystem + nowOfSystem} {
		if _, err := change([]byte(text)); err == nil || !strings.Contains(err.Error(), "time.Now") {
			t.Errorf("change(%q) = %v, want an error that names time.Now", text, err)
		}
	}
}
