package command

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"badgerelay/cmd/internal/process"
)

// Main runs a program as systemd or a person starts it, and returns its exit code. SIGINT
// or SIGTERM ends its context; a second one kills at once.
func Main(program func(*Terminal) *cobra.Command) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	stdout, stderr := process.Standard()
	defer stdout.Flush()
	defer stderr.Flush()
	t := &Terminal{In: os.Stdin, Out: stdout, Err: stderr}
	return Run(ctx, program(t), t, os.Args[1:])
}
