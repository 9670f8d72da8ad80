// Command badgerelay relays unread counts from mail servers to the app icons
// of iPhones and iPads: the daemon (serve), the operator's commands, and a
// demonstration that needs nothing else (demo).
//
// The daemon's configuration is described in internal/config, the wiring of
// its parts is internal/daemon's run, the operator's commands are in
// internal/operator, the demonstration in internal/demo.
//
// The command does not keep itself running: systemd or Kubernetes restart it,
// and no badge is lost by that.
package main

import (
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"badgerelay/cmd/internal/command"
)

func main() {
	reload := make(chan os.Signal, 1)
	signal.Notify(reload, syscall.SIGHUP)
	os.Exit(command.Main(func(t *command.Terminal) *cobra.Command { return process{Terminal: t, reload: reload}.command() }))
}
