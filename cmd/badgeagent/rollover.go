package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"badgerelay/auth/certs"
	"badgerelay/cmd/internal/command"
	"badgerelay/relay/agent"
	"badgerelay/relay/agent/enrolment"

	"github.com/spf13/cobra"
)

// staging is what cert stage is asked for.
type staging struct {
	effective      string
	force, replace bool
}

func (a *app) certStageCommand() *cobra.Command {
	var s staging
	cmd := &cobra.Command{
		Use: "stage", Short: "create the next certificate, for a roll-over",
		Long: `Creates the certificate that shall follow the current one, and exports it. The
relay learns of it from the metadata document that the agent publishes, or its
operator registers the exported file. From the effective date on a running
'badgeagent serve' makes it the current one as soon as the relay accepts it, without
breaking a stream; without one, 'cert publish' does.

Repeating it keeps the staged certificate; another --effective changes its date.
Less than 48 hours of notice needs --force.`,
		Example: `  badgeagent cert stage
  badgeagent cert stage --effective 2027-01-15T00:00:00Z`,
		RunE: a.do(func(context.Context, []string) error { return a.stageCertificate(s) }),
	}
	cmd.Flags().StringVar(&s.effective, "effective", "", "`when` it may be published, RFC 3339 or a date (default: 48 hours from now)")
	cmd.Flags().BoolVar(&s.force, "force", false, "with less than 48 hours of notice")
	cmd.Flags().BoolVar(&s.replace, "replace", false, "create another one in the place of one that is staged")
	a.DryRunFlag(cmd)
	return cmd
}

func (a *app) stageCertificate(s staging) error {
	at, err := command.ParseTime("--effective", s.effective)
	if err != nil {
		return err
	}
	given := s.effective != ""
	if !given {
		at = time.Now().Add(certs.PublishNotice + time.Minute).Truncate(time.Second)
	}
	r, err := a.rollover()
	if err != nil {
		return err
	}
	fresh := r.Next == nil || s.replace
	changes := fresh || given && !at.Equal(r.Effective)
	if changes && time.Until(at) < certs.PublishNotice && !s.force {
		return fmt.Errorf("%s is less than 48 hours from now: the relay may not know the new certificate in time; --force does it all the same",
			command.Time(at))
	}
	if r.Current == nil {
		return a.missing(enrolment.ErrNoCertificate)
	}
	if changes && a.DryRun {
		return a.wouldWrite([]string{a.keptFile()}, "stage a next certificate, effective from %s", command.Time(at))
	}
	if a.DryRun {
		a.Say("A next certificate is staged already.")
		return a.wouldExport(a.exportFile("", exportNextName))
	}
	store, err := a.kept().Certificates()
	if err != nil {
		return err
	}
	switch {
	case fresh:
		_, err = store.Stage(r.Current.Domain, at, true)
	case changes:
		a.Say("A next certificate is staged already. Changing its date...")
		err = store.Reschedule(at, true)
	default:
		a.Say("A next certificate is staged already.")
	}
	if err != nil {
		return err
	}
	return a.reportStaged()
}

func (a *app) reportStaged() error {
	r, err := a.rollover()
	if err != nil {
		return err
	}
	if r.Next == nil {
		return a.missing(enrolment.ErrNotStaged) // published meanwhile
	}
	a.Say("Next Certificate Thumbprint is: %s", r.Next.Thumbprint())
	a.Say("It may be published from: %s", command.Time(r.Effective))
	if _, err := a.export(r.Next, "", exportNextName); err != nil {
		return err
	}
	return a.result(rolloverLine(&r))
}

func (a *app) certPublishCommand() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use: "publish", Short: "make the next certificate the current one",
		Long: `Makes the staged certificate the current one, and the current one the previous.
Before its effective date it needs --force, and also where there is a previous one in
its overlap of 48 hours, which it deletes: the relay may know only that one. The relay
accepts two while both are registered there. The relay is asked whether it accepts the
new one; where it refuses it, --force is needed too. A running
'badgeagent serve' does all this by itself, when the relay accepts the new key.`,
		RunE: a.do(func(ctx context.Context, _ []string) error { return a.publishCertificate(ctx, force) }),
	}
	cmd.Flags().BoolVar(&force, "force", false, "before the effective date, in the overlap of a previous certificate, or though the relay refuses it")
	a.DryRunFlag(cmd)
	return cmd
}

func (a *app) publishCertificate(ctx context.Context, force bool) error {
	r, err := a.rollover()
	if err != nil {
		return err
	}
	if r.Next == nil && r.Previous == nil {
		return a.missing(enrolment.ErrNotStaged)
	}
	if r.Next == nil {
		a.Say("No next certificate is staged; the current one stays.")
		if a.DryRun {
			return a.wouldExport(a.exportFile("", exportName))
		}
		return a.reportPublished()
	}
	if time.Now().Before(r.Effective) && !force {
		return fmt.Errorf("the next certificate is not effective before %s; --force publishes it all the same", command.Time(r.Effective))
	}
	if err := overlapError(&r); err != nil && !force {
		return fmt.Errorf("%w, or publish with --force, which deletes it", err)
	}
	switch refused, err := a.refusesKey(ctx, r.Next); {
	case refused && !force:
		return fmt.Errorf("%w; --force publishes it all the same", err)
	case err != nil:
		a.Warn("%v", err)
	}
	if a.DryRun {
		return a.wouldWrite([]string{a.keptFile()}, "make %s the current certificate%s", r.Next.Thumbprint(), alsoDeleted(r.Previous, nil))
	}
	store, err := a.kept().Certificates()
	if err != nil {
		return err
	}
	if _, err := store.Publish(force); err != nil {
		return err
	}
	a.sayDeleted(r.Previous, nil)
	return a.reportPublished()
}

// refusesKey asks the relay whether it accepts a certificate's key: the error says that it
// does not, refused, or that it was not to be asked. Nothing is asked before the relay is set.
func (a *app) refusesKey(ctx context.Context, c *enrolment.Certificate) (refused bool, err error) {
	s, unset := a.settings(a.relay)
	if unset != nil {
		return false, nil
	}
	s.certificate = c
	if s.token, err = s.issuer(c.Pair); err != nil {
		return false, err
	}
	ctx, cancel := context.WithTimeout(ctx, acceptTimeout)
	defer cancel()
	err = s.askRelay(ctx)
	switch failure := agent.Explain(err); {
	case err == nil, failure.Kind == agent.FailureRefused: // it has accepted the token
		return false, nil
	case failure.Kind == agent.FailureToken:
		return true, s.explain(err)
	}
	return false, fmt.Errorf("whether the relay accepts %s is not known: %w", c.Thumbprint(), s.explain(err))
}

// overlapError says that there is a previous certificate in its overlap, and how to be
// without it; nil: there is none.
func overlapError(r *enrolment.Rollover) error {
	if r.Previous == nil || !time.Now().Before(r.Retire) {
		return nil
	}
	return fmt.Errorf("the previous certificate, %s, is in its overlap until %s, and the relay may know only that one; "+
		"wait until then, or first delete it with 'badgeagent cert retire --force'", r.Previous.Thumbprint(), command.Time(r.Retire))
}

// alsoDeleted says which certificates, and their keys, are deleted with a change; nil:
// there is none.
func alsoDeleted(previous, next *enrolment.Certificate) (text string) {
	if previous != nil {
		text = fmt.Sprintf(", and delete the previous one, %s, and its key", previous.Thumbprint())
	}
	if next != nil {
		text += fmt.Sprintf(", and delete the next one, %s, and its key", next.Thumbprint())
	}
	return text
}

func (a *app) sayDeleted(previous, next *enrolment.Certificate) {
	if previous != nil {
		a.Say("Deleted the previous certificate: %s", previous.Thumbprint())
	}
	if next != nil {
		a.Say("Deleted the next certificate: %s", next.Thumbprint())
	}
}

func (a *app) reportPublished() error {
	r, err := a.rollover()
	if err != nil {
		return err
	}
	a.Say("Configured Certificate Thumbprint is: %s", r.Current.Thumbprint())
	if _, err := a.export(r.Current, "", exportName); err != nil {
		return err
	}
	return a.result(rolloverLine(&r))
}

func (a *app) certRetireCommand() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use: "retire", Short: "delete the previous certificate and its key",
		Long: `Deletes the previous certificate and its key. Before its overlap of 48 hours is over
it needs --force, and later too unless the relay accepts the current one: it may still
know only that one. A running 'badgeagent serve' does this by itself when the overlap is
over and the relay accepts the current one. Then the relay's operator may remove
the old credential; 'badgerelay credential list' shows when it was last used.`,
		RunE: a.do(func(ctx context.Context, _ []string) error { return a.retireCertificate(ctx, force) }),
	}
	cmd.Flags().BoolVar(&force, "force", false, "before the overlap is over, or though the relay does not accept the current one")
	a.DryRunFlag(cmd)
	return cmd
}

func (a *app) retireCertificate(ctx context.Context, force bool) error {
	r, err := a.rollover()
	if err != nil {
		return err
	}
	switch {
	case r.Previous == nil:
		a.Say("There is no previous certificate.")
		return a.result(rolloverLine(&r))
	case time.Now().Before(r.Retire) && !force:
		return fmt.Errorf("the previous certificate is in its overlap until %s; --force deletes it all the same", command.Time(r.Retire))
	}
	if !force && r.Current != nil {
		if _, err := a.refusesKey(ctx, r.Current); err != nil {
			return fmt.Errorf("the previous certificate is kept until the relay accepts the current one: %w; --force deletes it all the same", err)
		}
	}
	if a.DryRun {
		return a.wouldWrite([]string{a.keptFile()}, "delete the previous certificate, %s, and its key", r.Previous.Thumbprint())
	}
	store, err := a.kept().Certificates()
	if err != nil {
		return err
	}
	if err := store.ClearPrevious(force); err != nil && !errors.Is(err, certs.ErrNoCertificate) {
		return err
	}
	a.sayDeleted(r.Previous, nil)
	if r, err = a.rollover(); err != nil {
		return err
	}
	return a.result(rolloverLine(&r))
}
