package rig

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// Build builds a program from the sources in the working directory, as the Makefile
// does, with more flags of go build.
func Build(ctx context.Context, program, path string, flags ...string) error {
	args := append([]string{"build", "-trimpath", "-ldflags", "-s -w", "-o", path}, flags...)
	c := exec.CommandContext(ctx, "go", append(args, "badgerelay/cmd/"+program)...)
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}
