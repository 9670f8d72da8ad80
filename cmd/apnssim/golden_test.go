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
		commandtest.Mistakes(t, root, run, "", "--devices -1", "--seed 1e3", "--seed 0x10", "--stream-limit 1_000", "--rtt 5", "--server-error-wait -1s", "--devices 1 --devices 2", "--devices 5001", "--faults high", "--environment test", "--log-level loud",
			"--output xml", "--rtt -1s", "--generate-key d --public-key k", "--generate-keys d", "--generate-key d --listen 0.0.0.0:1",
			"--generate-key d --device name=x", "--generate-key main.go", "--generate-key d --ca-file .", "--public-key main.go --listen 127.0.0.1:0 --management 127.0.0.1:0", "--public-key /nowhere/key --listen 127.0.0.1:0 --management 127.0.0.1:0", "version bogus")
	})
}
