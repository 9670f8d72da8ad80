package main

import (
	"os"
	"os/signal"
	"syscall"

	"badgerelay/cmd/badgeagent/internal/serve"
)

// host is what starts the program and is told how it is: a terminal or
// systemd, or Windows' service manager.
type host struct {
	ready  func(serve.Serving) // told when the daemon serves; nil: nobody is
	reload <-chan os.Signal    // asks the daemon to read its secrets again; nil: SIGHUP does
}

// reloads is where the daemon is asked to read its secrets again.
func (h host) reloads() <-chan os.Signal {
	if h.reload != nil {
		return h.reload
	}
	reload := make(chan os.Signal, 1)
	signal.Notify(reload, syscall.SIGHUP)
	return reload
}
