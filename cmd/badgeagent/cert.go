package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"badgerelay/auth/certs"
	"badgerelay/cmd/internal/command"
	"badgerelay/relay/agent/enrolment"

	"github.com/spf13/cobra"
)

// Names of exported certificates, as the seed's script has the first.
const (
	exportName     = "OAuthCert.cer"
	exportNextName = "OAuthCert.next.cer"
)

func (a *app) certCommand() *cobra.Command {
	return a.group("cert", "the certificate whose key signs the organization's tokens",
		a.certEnsureCommand(), a.certShowCommand(), a.certStageCommand(), a.certPublishCommand(), a.certRetireCommand(), a.certExportCommand())
}

func (a *app) certEnsureCommand() *cobra.Command {
	var name, file string
	var replace bool
	cmd := &cobra.Command{
		Use: "ensure", Short: "find or create the certificate, and export its public part",
		Long: `Reuses the organization's certificate if there is a valid one of at least 2048 bits,
and creates one only if there is none ("Exchange S2S OAuth", RSA 2048). Prints its
thumbprint and exports the public part as DER, for the relay's operator to register.
The lines it prints are those of the script that Exchange's administrators know.

A directory holds the certificate of one organization. Where there is another's,
nothing is done without --replace, which creates one for the organization and has
the other be the previous one.`,
		Example: `  badgeagent cert ensure --organization fabrikam.com
  badgeagent cert ensure --organization fabrikam.com --file OAuthCert.cer`,
		RunE: a.do(func(context.Context, []string) error { return a.ensureCertificate(name, file, replace) }),
	}
	organizationFlag(cmd, &name, "the organization's `domain`")
	cmd.Flags().StringVar(&name, "domain", "", "Exchange's word for --organization")
	cmd.Flags().StringVar(&file, "file", "", "where to export to (default: OAuthCert.cer in --dir)")
	cmd.Flags().BoolVar(&replace, "replace", false, "create another one where there is that of another organization")
	a.DryRunFlag(cmd)
	command.RequireOne(cmd, "organization", "domain")
	command.Files(cmd, "file", "cer")
	return cmd
}

func (a *app) ensureCertificate(name, file string, replace bool) error {
	name, err := domain(name)
	if err != nil {
		return command.Usage("%w", err)
	}
	if file == standardOutput { // where it says what it does
		return command.Usage("cert ensure has no standard output to spare; 'badgeagent cert export --file -' writes there")
	}
	if err := a.mayExport(a.exportFile(file, exportName), isCertificate); err != nil {
		return err
	}
	current, err := a.currentCertificate()
	if err != nil && !errors.Is(err, enrolment.ErrNoCertificate) {
		return err
	}
	foreign := current != nil && !strings.EqualFold(current.Domain, name)
	var replaced enrolment.Rollover
	if foreign {
		if !replace {
			return command.Invalidf("the certificate in %s is that of %s, not of %s; name another directory with --dir, or have it replaced with --replace",
				a.dir, current.Domain, name)
		}
		if replaced, err = a.replaceable(); err != nil {
			return err
		}
	}
	if a.DryRun && (foreign || current == nil || time.Now().After(current.NotAfter)) {
		export := a.exportFile(file, exportName)
		return a.wouldWrite([]string{a.keptFile(), export}, "create a certificate for %s and export it to %s%s", name, export, alsoDeleted(replaced.Previous, replaced.Next))
	}
	created := false
	switch {
	case a.DryRun:
	case foreign:
		current, err = a.kept().Replace(name)
		if created = err == nil; created {
			a.sayDeleted(replaced.Previous, replaced.Next)
		}
	default:
		current, created, err = a.kept().Ensure(name)
	}
	if err != nil {
		return err
	}
	if doubt := command.DomainDoubt(name); doubt != "" {
		a.Warn("%s", doubt)
	}
	return a.reportEnsured(current, created, file)
}

func (a *app) reportEnsured(current *enrolment.Certificate, created bool, file string) error {
	if created {
		a.Say("Creating certificate for oAuth...")
	}
	a.Say("Configured Certificate Thumbprint is: %s", current.Thumbprint())
	if a.DryRun {
		return a.wouldExport(a.exportFile(file, exportName))
	}
	file, err := a.export(current, file, exportName)
	if err != nil {
		return err
	}
	line := certificateLineOf(current)
	line.Created, line.File = created, file
	return a.result(line)
}

// replaceable returns the certificates that there are, if another organization's may take
// their place.
func (a *app) replaceable() (enrolment.Rollover, error) {
	r, err := a.rollover()
	if err == nil {
		err = overlapError(&r)
	}
	return r, err
}

func (a *app) wouldExport(file string) error {
	return a.wouldWrite([]string{file}, "export it to %s", file)
}

// exportFile is where a certificate is exported to: as given, or into the
// directory. Its path is whole, because people have to find it.
func (a *app) exportFile(given, name string) string {
	if given == "" {
		given = filepath.Join(a.dir, name)
	}
	if whole, err := filepath.Abs(given); err == nil {
		return whole
	}
	return given
}

// export writes a certificate's public part as DER, unless it is there, and says
// where that is.
func (a *app) export(c *enrolment.Certificate, file, name string) (string, error) {
	own := file == "" // in the directory, whose owner writes it again
	file = a.exportFile(file, name)
	a.Say("Exporting certificate...")
	if err := a.mayExport(file, isCertificate); err != nil {
		return "", err
	}
	if err := a.writePublic(file, c.Raw); err != nil {
		return "", err
	}
	if own {
		if err := certs.KeepOwner(file); err != nil {
			return "", err
		}
	}
	a.Say("Complete.")
	a.Say("The public part is in %s: give it to the relay's operator, for 'badgerelay credential add'.", file)
	return file, nil
}

func (a *app) certExportCommand() *cobra.Command {
	var file string
	var next bool
	cmd := &cobra.Command{
		Use: "export", Short: "export the certificate's public part as DER",
		Example: `  badgeagent cert export --file OAuthCert.cer
  badgeagent cert export --next`,
		RunE: a.do(func(context.Context, []string) error {
			c, name, err := a.toExport(next)
			if err != nil {
				return err
			}
			if file == standardOutput {
				if err := a.Binary("a certificate"); err != nil {
					return err
				}
				_, err := a.Out.Write(c.Raw)
				return err
			}
			path := a.exportFile(file, name)
			if err := a.mayExport(path, isCertificate); err != nil {
				return err
			}
			if a.DryRun {
				return a.wouldWrite([]string{path}, "export the certificate to %s", path)
			}
			path, err = a.export(c, file, name)
			if err != nil {
				return err
			}
			line := certificateLineOf(c)
			line.File = path
			return a.result(line)
		}),
	}
	cmd.Flags().StringVar(&file, "file", "", "where to; - is standard output (default: OAuthCert.cer or OAuthCert.next.cer in --dir)")
	cmd.Flags().BoolVar(&next, "next", false, "the staged certificate")
	a.DryRunFlag(cmd)
	return cmd
}

func (a *app) toExport(next bool) (*enrolment.Certificate, string, error) {
	if !next {
		c, err := a.currentCertificate()
		return c, exportName, err
	}
	r, err := a.rollover()
	if err == nil && r.Next == nil {
		err = a.missing(enrolment.ErrNotStaged)
	}
	return r.Next, exportNextName, err
}

func (a *app) certShowCommand() *cobra.Command {
	return &cobra.Command{
		Use: "show", Short: "print the current, the next and the previous certificate",
		RunE: a.do(func(context.Context, []string) error {
			r, err := a.rollover()
			if err != nil {
				return err
			}
			if r.Current == nil && r.Next == nil {
				return a.missing(enrolment.ErrNoCertificate)
			}
			a.sayCertificate("Current", r.Current)
			a.sayCertificate("Next", r.Next, dated("Effective", r.Effective)...)
			a.sayCertificate("Previous", r.Previous, dated("Retires", r.Retire)...)
			return a.result(rolloverLine(&r))
		}),
	}
}

// dated is a field with a time, if there is one.
func dated(name string, at time.Time) []command.Field {
	if at.IsZero() {
		return nil
	}
	return []command.Field{{name, command.Time(at)}}
}

func (a *app) sayCertificate(role string, c *enrolment.Certificate, more ...command.Field) {
	if c == nil || a.JSON() {
		return
	}
	fields := []command.Field{
		{"Role", role}, {"Thumbprint", c.Thumbprint()}, {"Subject", c.Subject.String()},
		{"Key size", fmt.Sprint(c.PublicKeySize())}, {"Not before", command.Time(c.NotBefore)}, {"Not after", command.Time(c.NotAfter)},
		{"Days left", fmt.Sprint(days(c.NotAfter))},
	}
	a.List(append(fields, more...)...)
	a.Say("")
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

func certificateLineOf(c *enrolment.Certificate) *certificateLine {
	if c == nil {
		return nil
	}
	return &certificateLine{Thumbprint: c.Thumbprint(), Subject: c.Subject.String(), PublicKeySize: c.PublicKeySize(),
		NotBefore: c.NotBefore.UTC(), NotAfter: c.NotAfter.UTC()}
}

func rolloverLine(r *enrolment.Rollover) any {
	next, previous := certificateLineOf(r.Next), certificateLineOf(r.Previous)
	if next != nil {
		next.Effective = r.Effective.UTC()
	}
	if previous != nil {
		previous.Retire = r.Retire.UTC()
	}
	return struct {
		Current  *certificateLine `json:"current"`
		Next     *certificateLine `json:"next"`
		Previous *certificateLine `json:"previous"`
	}{certificateLineOf(r.Current), next, previous}
}
