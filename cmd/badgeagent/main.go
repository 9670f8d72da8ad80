// Command badgeagent is the mailbox side of badgerelay: it makes and rolls
// over the organization's certificate, learns how to reach the relay, switches
// the push notification proxy on and off, tests the whole way, and, as a daemon,
// watches the mailboxes and sends their unread counts.
//
// It keeps everything in one directory, asks no questions, and may be run
// again: what is there already is left alone.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // from here a second signal kills at once
	os.Exit(run(ctx, os.Args[1:], streams{in: os.Stdin, out: os.Stdout, err: os.Stderr}))
}
