package main

import (
	"bytes"
	"testing"

	"badgerelay/cmd/internal/command"
	"badgerelay/cmd/internal/command/commandtest"
)

func TestCommandLine(t *testing.T) {
	root := program(&command.Terminal{})
	run := func(args ...string) (int, string) {
		var b bytes.Buffer
		code := run(t.Context(), args, &b, &b)
		return code, b.String()
	}
	t.Run("help", func(t *testing.T) { commandtest.Help(t, root, run) })
	t.Run("mistakes", func(t *testing.T) {
		commandtest.Mistakes(t, root, run, "relya", "relay --output table", "relay --repeat 0", "relay --repeat -1", "relay --mailboxes -5",
			"relay --duration -1s", "relay --duration 5", "relay --rate NaN", "relay --rate 1e3", "relay --max-mailboxes 0x10", "scale --sizes 1e3,2", "apns --pushes 1e6", "apns --pushes 10", "apns --connects-per-second 0", "relay --rate 1 --rate 2", "relay --badgerelay /nowhere", "relay --engine h2", "apns --cpuprofile /nowhere/x", "apns --cpuprofile .", "fleet --rate -1")
	})
}
