package clock

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Variable names the file with the clock in the environment of the program. The
// program's clock is the system's without it.
const Variable = "BADGERIG_CLOCK"

//go:embed stepped.go.txt
var stepped []byte

// What is changed in package time, as it is since Go 1.26.
const (
	nowOfSystem  = "func Now() Time {\n\tsec, nsec, mono := runtimeNow()\n"
	nowOfProgram = nowOfSystem + "\tsec += ahead()\n"
)

// Build builds badgerelay of the sources in the working directory with a clock of its
// own, and returns where it is in dir.
func Build(ctx context.Context, dir string) (string, error) {
	overlay, err := Overlay(ctx, dir)
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "badgerelay")
	c := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-overlay", overlay, "-o", path, "badgerelay/cmd/badgerelay")
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := c.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build badgerelay with a clock of its own: %w: %s", err, bytes.TrimSpace(out))
	}
	return path, nil
}

// Overlay writes the changed package time of the toolchain to dir and returns
// the file for go build -overlay.
func Overlay(ctx context.Context, dir string) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
	if err != nil {
		return "", fmt.Errorf("find the toolchain's sources: %w", err)
	}
	source := filepath.Join(strings.TrimSpace(string(out)), "src", "time")
	original, err := os.ReadFile(filepath.Join(source, "time.go"))
	if err != nil {
		return "", fmt.Errorf("read the toolchain's package time: %w", err)
	}
	changed, err := change(original)
	if err != nil {
		return "", err
	}
	files := map[string][]byte{"time.go": changed, "stepped.go": stepped}
	replace := make(map[string]string, len(files))
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, text, 0o600); err != nil {
			return "", fmt.Errorf("write overlay: %w", err)
		}
		replace[filepath.Join(source, name)] = path
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", fmt.Errorf("encode overlay: %w", err)
	}
	path := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(path, overlay, 0o600); err != nil {
		return "", fmt.Errorf("write overlay: %w", err)
	}
	return path, nil
}

// change puts the program's clock into the text of package time.
func change(original []byte) ([]byte, error) {
	if n := bytes.Count(original, []byte(nowOfSystem)); n != 1 {
		return nil, fmt.Errorf("this toolchain's time.Now is not the known one (%d places like it, want 1): package clock has to learn it", n)
	}
	return bytes.Replace(original, []byte(nowOfSystem), []byte(nowOfProgram), 1), nil
}
