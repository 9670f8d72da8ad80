package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"badgerelay/auth"

	"github.com/spf13/cobra"
)

// Names of exported certificates, as the seed's script has the first.
const (
	exportName     = "OAuthCert.cer"
	exportNextName = "OAuthCert.next.cer"
)

func (a *app) certCommand() *cobra.Command {
	return group("cert", "the certificate whose key signs the organization's tokens",
		a.certEnsureCommand(), a.certShowCommand(), a.certStageCommand(), a.certPublishCommand(), a.certRetireCommand(), a.certExportCommand())
}

func (a *app) certEnsureCommand() *cobra.Command {
	var name, file string
	cmd := &cobra.Command{
		Use: "ensure", Short: "find or create the certificate, and export its public part", Args: cobra.NoArgs,
		Long: `Reuses the certificate if there is a valid one of at least 2048 bits, and creates
one only if there is none ("Exchange S2S OAuth", RSA 2048). Prints its thumbprint
and exports the public part as DER, for the relay's operator to register.`,
		Example: `  badgeagent cert ensure --domain fabrikam.com
  badgeagent cert ensure --domain fabrikam.com --file OAuthCert.cer`,
		RunE: a.do(func(context.Context, []string) error { return a.ensureCertificate(name, file) }),
	}
	cmd.Flags().StringVar(&name, "domain", "", "the organization's `domain`")
	cmd.Flags().StringVar(&file, "file", "", "where to export to (default: OAuthCert.cer in --dir)")
	a.whatIfFlag(cmd)
	_ = cmd.MarkFlagRequired("domain") // fails only for a flag that is not there
	return cmd
}

func (a *app) ensureCertificate(name, file string) error {
	name, err := domain(name)
	if err != nil {
		return &misuse{err}
	}
	current, err := a.currentCertificate()
	if err != nil && !errors.Is(err, errNoCertificate) {
		return err
	}
	if a.whatIf && (current == nil || time.Now().After(current.NotAfter)) {
		a.wouldDo("New-ExchangeCertificate", name)
		return a.result(struct {
			Created bool `json:"created"`
		}{})
	}
	created := false
	if !a.whatIf {
		if current, created, err = a.ensure(name); err != nil {
			return err
		}
	}
	if created {
		a.say("Creating certificate for oAuth...")
	}
	a.say("Configured Certificate Thumbprint is: %s", current.Thumbprint())
	file, err = a.export(current, file, exportName)
	if err != nil {
		return err
	}
	a.say("Complete.")
	line := certificateLineOf(current)
	line.Created, line.File = created, file
	return a.result(line)
}

// export writes a certificate's public part as DER, unless it is there.
func (a *app) export(c *certificate, file, name string) (string, error) {
	if file == "" {
		file = filepath.Join(a.dir, name)
	}
	if a.whatIf {
		a.wouldDo("Export-ExchangeCertificate", file)
		return file, nil
	}
	a.say("Exporting certificate...")
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return "", err
	}
	return file, auth.ExportDER(file, c.Certificate)
}

func (a *app) certExportCommand() *cobra.Command {
	var file string
	var next bool
	cmd := &cobra.Command{
		Use: "export", Short: "export the certificate's public part as DER", Args: cobra.NoArgs,
		Example: `  badgeagent cert export --file OAuthCert.cer
  badgeagent cert export --next`,
		RunE: a.do(func(context.Context, []string) error {
			c, name, err := a.toExport(next)
			if err != nil {
				return err
			}
			path, err := a.export(c, file, name)
			if err != nil {
				return err
			}
			a.say("Complete.")
			line := certificateLineOf(c)
			line.File = path
			return a.result(line)
		}),
	}
	cmd.Flags().StringVar(&file, "file", "", "where to (default: OAuthCert.cer or OAuthCert.next.cer in --dir)")
	cmd.Flags().BoolVar(&next, "next", false, "the staged certificate")
	a.whatIfFlag(cmd)
	return cmd
}

func (a *app) toExport(next bool) (*certificate, string, error) {
	if !next {
		c, err := a.currentCertificate()
		return c, exportName, err
	}
	r, err := a.rollover()
	if err == nil && r.next == nil {
		err = errNotStaged
	}
	return r.next, exportNextName, err
}

func (a *app) certShowCommand() *cobra.Command {
	return &cobra.Command{
		Use: "show", Short: "print the current, the next and the previous certificate", Args: cobra.NoArgs,
		RunE: a.do(func(context.Context, []string) error {
			r, err := a.rollover()
			if err != nil {
				return err
			}
			if r.current == nil && r.next == nil {
				return errNoCertificate
			}
			a.sayCertificate("Current", r.current)
			a.sayCertificate("Next", r.next, dated("EffectiveUTC", r.effective)...)
			a.sayCertificate("Previous", r.previous, dated("RetireUTC", r.retire)...)
			return a.result(rolloverLine(&r))
		}),
	}
}

// dated is a field with a date, if there is one.
func dated(name string, at time.Time) []field {
	if at.IsZero() {
		return nil
	}
	return []field{{name, utc(at)}}
}

func (a *app) sayCertificate(role string, c *certificate, more ...field) {
	if c == nil || a.output != "text" {
		return
	}
	fields := []field{
		{"Role", role}, {"Thumbprint", c.Thumbprint()}, {"Subject", c.Subject.String()},
		{"PublicKeySize", fmt.Sprint(c.PublicKeySize())}, {"NotBeforeUTC", utc(c.NotBefore)}, {"NotAfterUTC", utc(c.NotAfter)},
		{"DaysLeft", fmt.Sprint(days(c.NotAfter))},
	}
	list(a.out, append(fields, more...))
	a.say("")
}

type certificateLine struct {
	Thumbprint    string    `json:"thumbprint"`
	Subject       string    `json:"subject"`
	PublicKeySize int       `json:"publicKeySize"`
	NotBefore     time.Time `json:"notBefore"`
	NotAfter      time.Time `json:"notAfter"`
	Effective     time.Time `json:"effective,omitzero"`
	Retire        time.Time `json:"retire,omitzero"`
	Created       bool      `json:"created,omitempty"`
	File          string    `json:"file,omitempty"`
}

func certificateLineOf(c *certificate) *certificateLine {
	if c == nil {
		return nil
	}
	return &certificateLine{Thumbprint: c.Thumbprint(), Subject: c.Subject.String(), PublicKeySize: c.PublicKeySize(),
		NotBefore: c.NotBefore.UTC(), NotAfter: c.NotAfter.UTC()}
}

func rolloverLine(r *rollover) any {
	next, previous := certificateLineOf(r.next), certificateLineOf(r.previous)
	if next != nil {
		next.Effective = r.effective.UTC()
	}
	if previous != nil {
		previous.Retire = r.retire.UTC()
	}
	return struct {
		Current  *certificateLine `json:"current"`
		Next     *certificateLine `json:"next"`
		Previous *certificateLine `json:"previous"`
	}{certificateLineOf(r.current), next, previous}
}
