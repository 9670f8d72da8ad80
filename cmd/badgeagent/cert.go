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
		a.certEnsureCommand(), a.certShowCommand(), a.certStageCommand(), a.certPublishCommand(), a.certExportCommand())
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
			a.sayCertificate("Current", r.current, "")
			effective := ""
			if r.next != nil {
				effective = utc(r.effective)
			}
			a.sayCertificate("Next", r.next, effective)
			a.sayCertificate("Previous", r.previous, "")
			return a.result(rolloverLine(&r))
		}),
	}
}

func (a *app) sayCertificate(role string, c *certificate, effective string) {
	if c == nil || a.output != "text" {
		return
	}
	fields := []field{
		{"Role", role}, {"Thumbprint", c.Thumbprint()}, {"Subject", c.Subject.String()},
		{"PublicKeySize", fmt.Sprint(c.PublicKeySize())}, {"NotBeforeUTC", utc(c.NotBefore)}, {"NotAfterUTC", utc(c.NotAfter)},
		{"DaysLeft", fmt.Sprint(days(c.NotAfter))},
	}
	if effective != "" {
		fields = append(fields, field{"EffectiveUTC", effective})
	}
	list(a.out, fields)
	a.say("")
}

func (a *app) certStageCommand() *cobra.Command {
	var effective string
	var force bool
	cmd := &cobra.Command{
		Use: "stage", Short: "create the next certificate, for a roll-over", Args: cobra.NoArgs,
		Long: `Creates the certificate that shall follow the current one, and exports it. Have the
relay's operator register it; from its effective date on 'cert publish' makes it the
current one. Less than 48 hours of notice needs --force.`,
		Example: `  badgeagent cert stage
  badgeagent cert stage --effective 2027-01-15T00:00:00Z`,
		RunE: a.do(func(context.Context, []string) error { return a.stageCertificate(effective, force) }),
	}
	cmd.Flags().StringVar(&effective, "effective", "", "`when` it may be published, RFC 3339 (default: 48 hours from now)")
	cmd.Flags().BoolVar(&force, "force", false, "with less than 48 hours of notice, or in the place of one staged before")
	a.whatIfFlag(cmd)
	return cmd
}

func (a *app) stageCertificate(effective string, force bool) error {
	at := time.Now().Add(auth.PublishNotice + time.Minute).Truncate(time.Second)
	if effective != "" {
		var err error
		if at, err = time.Parse(time.RFC3339, effective); err != nil {
			return misused("--effective %q is not a time such as 2027-01-15T00:00:00Z", effective)
		}
		if time.Until(at) < auth.PublishNotice && !force {
			return fmt.Errorf("%s is less than 48 hours from now: the relay may not know the new certificate in time; --force does it all the same",
				at.UTC().Format(time.RFC3339))
		}
	}
	r, err := a.rollover()
	if err != nil {
		return err
	}
	if r.current == nil {
		return errNoCertificate
	}
	if a.whatIf {
		a.wouldDo("Set-AuthConfig -NewCertificateThumbprint", at.UTC().Format(time.RFC3339))
		return a.result(rolloverLine(&r))
	}
	if r.next != nil && !force {
		a.say("A next certificate is staged already.")
	} else if err := a.stage(r.current.domain, at, force); err != nil {
		return err
	}
	if r, err = a.rollover(); err != nil {
		return err
	}
	a.say("Next Certificate Thumbprint is: %s", r.next.Thumbprint())
	a.say("It may be published from: %s", r.effective.UTC().Format(time.RFC3339))
	if _, err := a.export(r.next, "", exportNextName); err != nil {
		return err
	}
	a.say("Complete.")
	return a.result(rolloverLine(&r))
}

func (a *app) certPublishCommand() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use: "publish", Short: "make the next certificate the current one", Args: cobra.NoArgs,
		Long: `Makes the staged certificate the current one, and the current one the previous.
Before its effective date it needs --force. The relay accepts both while both are
registered there.`,
		RunE: a.do(func(context.Context, []string) error { return a.publishCertificate(force) }),
	}
	cmd.Flags().BoolVar(&force, "force", false, "before the effective date")
	a.whatIfFlag(cmd)
	return cmd
}

func (a *app) publishCertificate(force bool) error {
	r, err := a.rollover()
	if err != nil {
		return err
	}
	if r.next == nil {
		return errNotStaged
	}
	if time.Now().Before(r.effective) && !force {
		return fmt.Errorf("the next certificate is not effective before %s; --force publishes it all the same", r.effective.UTC().Format(time.RFC3339))
	}
	if a.whatIf {
		a.wouldDo("Set-AuthConfig -PublishCertificate", r.next.Thumbprint())
		return a.result(rolloverLine(&r))
	}
	if err := a.publishNext(force); err != nil {
		return err
	}
	if r, err = a.rollover(); err != nil {
		return err
	}
	a.say("Configured Certificate Thumbprint is: %s", r.current.Thumbprint())
	if _, err := a.export(r.current, "", exportName); err != nil {
		return err
	}
	a.say("Complete.")
	return a.result(rolloverLine(&r))
}

type certificateLine struct {
	Thumbprint    string    `json:"thumbprint"`
	Subject       string    `json:"subject"`
	PublicKeySize int       `json:"publicKeySize"`
	NotBefore     time.Time `json:"notBefore"`
	NotAfter      time.Time `json:"notAfter"`
	Effective     time.Time `json:"effective,omitzero"`
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
	next := certificateLineOf(r.next)
	if next != nil {
		next.Effective = r.effective.UTC()
	}
	return struct {
		Current  *certificateLine `json:"current"`
		Next     *certificateLine `json:"next"`
		Previous *certificateLine `json:"previous"`
	}{certificateLineOf(r.current), next, certificateLineOf(r.previous)}
}
