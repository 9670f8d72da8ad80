package main

import (
	"context"
	"time"

	"badgerelay/auth"
	"badgerelay/cmd/internal/command"

	"github.com/spf13/cobra"
)

// tokenLine is a token with what other programs have to know of it.
type tokenLine struct {
	Token        string    `json:"token"`
	ExpiresAt    time.Time `json:"expiresAt"`
	Audience     string    `json:"audience"`
	Organization string    `json:"organization"`
	Thumbprint   string    `json:"thumbprint"` // of the certificate whose key signed
	Relays       []string  `json:"relays"`     // host:port
}

func (a *app) tokenCommand() *cobra.Command {
	var lifetime time.Duration
	cmd := &cobra.Command{
		Use: "token", Short: "print a token for another program that calls the relay",
		Long: `Signs a token with the current certificate's key, as the daemon does, and prints
it: another program shows it to the relay as "authorization: Bearer ...". Whoever
has it may send counts and subscribe devices for the organization until it expires.
With --output json it comes with its expiry, its audience and the relays.`,
		Example: `  badgeagent token
  grpcurl -H "authorization: Bearer $(badgeagent token)" relay.example:8443 list`,
		RunE: a.do(func(ctx context.Context, _ []string) error { return a.printToken(ctx, lifetime) }),
	}
	command.Duration(cmd.Flags(), &lifetime, "lifetime", time.Minute, time.Hour, "how long it is good, 1m to 24h")
	return a.OutputFlag(cmd)
}

func (a *app) printToken(ctx context.Context, lifetime time.Duration) error {
	if lifetime > auth.MaxTokenLifetime {
		return command.Usage("--lifetime is %s, and at most %s", lifetime, auth.MaxTokenLifetime)
	}
	s, err := a.settings(a.relay)
	if err != nil {
		return err
	}
	issuer, err := s.server.NewIssuer(s.certificate.Pair, s.organization, lifetime)
	if err != nil {
		return err
	}
	token, expires, err := issuer.Token(ctx, "")
	if err != nil {
		return err
	}
	return a.Print(tokenLine{token, expires.UTC(), s.server.Audience, s.organization, s.certificate.Thumbprint(), s.relays},
		func() { a.Say("%s", token) })
}
