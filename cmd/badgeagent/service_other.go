//go:build !windows

package main

import "github.com/spf13/cobra"

// asService is for Windows: elsewhere the service manager starts programs as a
// terminal does.
func asService() (code int, service bool) { return 0, false }

// serviceCommands are for Windows; deploy/systemd has the unit for elsewhere.
func (a *app) serviceCommands() []*cobra.Command { return nil }

// protect has nothing to do: the modes that files and directories are made with
// keep others out.
func protect(string) error { return nil }
