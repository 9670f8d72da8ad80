package main

import (
	"bytes"
	"strings"
	"testing"

	"badgerelay/cmd/internal/command"
	"badgerelay/cmd/internal/command/commandtest"
)

func TestCommandLine(t *testing.T) {
	root := (&app{Terminal: &command.Terminal{}}).root()
	run := func(args ...string) (int, string) {
		var b bytes.Buffer
		code := run(t.Context(), args, &command.Terminal{In: strings.NewReader(""), Out: &b, Err: &b, Getenv: func(string) string { return "" }})
		return code, b.String()
	}
	t.Run("help", func(t *testing.T) { commandtest.Help(t, root, run) })
	t.Run("mistakes", func(t *testing.T) {
		commandtest.Mistakes(t, root, run,
			"config chekc", "run", "prob --app mail", "proxy enabel --organization a.com", "subscription ad --mailbox ann", "subscribe ann", "cert create", "cert ensure", "cert ensure --organization a.com --domain b.com",
			"auth-server set", "auth-server set --metadata-url http://relay.example/", "proxy enable --dir /nowhere/badgeagent", "publish ann", "publish ann=-1",
			"publish ann=1 --timeout -1s", "publish ann=1 --relay", "subscription add --mailbox ann", "subscription list --limit -3", "device set --app mail --device-token ab", "device set --none --mailbox ann --app mail --device-token ab",
			"probe --timeout soon", "cert stage --effective tomorrow", "config check a.yaml --config b.yaml", "proxy show --dir=", "cert ensure --organization müller.de", "cert ensure --organization a_b.com", "auth-server set --metadata-url https://relay.example:99999/", "proxy show --dir a --dir b", "explain", "explain ann bob")
	})
	t.Run("output", func(t *testing.T) {
		c, r := enrolled(t)
		device := " --mailbox ann@fabrikam.com --app mail --device-token " + deviceToken
		run := func(args ...string) (int, string) {
			code, out, stderr := c.run(args...)
			return code, out + stderr
		}
		commandtest.Output(t, "badgeagent", run, func(s string) string { return c.blur(strings.ReplaceAll(s, r.ca, "CA")) },
			"cert ensure --organization fabrikam.com --dry-run", "cert ensure --organization fabrikam.com", "cert show", "cert publish",
			"auth-server set --metadata-url "+r.web, "auth-server show", "proxy show", "config check /nowhere/badgeagent.yaml",
			"subscription list", "subscription list --output json", "subscription add --dry-run"+device, "subscription add"+device,
			"subscription add"+device, "subscription list", "publish ann@fabrikam.com=7 --dry-run", "publish ann@fabrikam.com=7",
			"publish ann@fabrikam.com=7 --output json", "publish gone=1", "publish bad=1", "subscription add --keep-others --mailbox sales@fabrikam.com --app mail --device-token "+deviceToken,
			"device set --dry-run"+device, "device set"+device, "device set --output json"+device, "device set --none --app mail --device-token "+deviceToken, "subscription add"+device, "subscription remove"+device,
			"subscription remove"+device, "subscription remove --output json"+device, "probe --app mail", "proxy disable --dry-run",
			"publish ann@fabrikam.com=7 --dir /nowhere/badgeagent")
	})
}
