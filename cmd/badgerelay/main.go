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
