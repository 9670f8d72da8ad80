package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	life "badgerelay/cmd/internal/process"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // from here a second signal kills at once
	reload := make(chan os.Signal, 1)
	signal.Notify(reload, syscall.SIGHUP)
	stdout, stderr := life.Standard()
	code := run(ctx, os.Args[1:], process{in: os.Stdin, out: stdout, err: stderr, getenv: os.Getenv, reload: reload})
	stdout.Flush()
	stderr.Flush()
	os.Exit(code)
}
