// Command badgeagent is the mailbox side of badgerelay: it makes and rolls
// over the organization's certificate, learns how to reach the relay, switches
// the push notification proxy on and off, tests the whole way, and, as a daemon,
// watches the mailboxes and sends their unread counts.
//
// It keeps everything in one directory, asks no questions, and may be run
// again: what is there already is left alone.
package main

import (
	"os"

	"github.com/spf13/cobra"

	"badgerelay/cmd/internal/command"
)

func main() {
	if code, service := asService(); service {
		os.Exit(code)
	}
	os.Exit(command.Main(func(t *command.Terminal) *cobra.Command { return (&app{Terminal: t}).root() }))
}
