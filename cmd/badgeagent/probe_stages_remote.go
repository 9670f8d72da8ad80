package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"badgerelay/cmd/badgeagent/internal/config"
	"badgerelay/cmd/badgeagent/internal/serve"
	"badgerelay/cmd/internal/configfile"
	"badgerelay/relay/agent"
	"badgerelay/relay/agent/check"
	"badgerelay/relay/agent/ews"
	"badgerelay/relay/agent/imap"
	"badgerelay/relay/agent/source"
)

// How far this machine's clock may be from the relay's. A relay allows 300 s
// (auth.DefaultSkew); from a tenth of that on somebody should know.
const (
	skewFails = 300 * time.Second
	skewWarns = 30 * time.Second
)

// clock compares this machine's clock with that of the relay's metadata server.
func (p *probe) clock(ctx context.Context) (string, error) {
	ahead, err := check.Clock(ctx, httpClient(p.settings.tls), p.settings.server.MetadataURL)
	if err != nil {
		return "", doubtful("not compared: %v", err) // the stage of the metadata says more
	}
	return judgeSkew(ahead)
}

// judgeSkew takes how far this machine's clock is ahead.
func judgeSkew(ahead time.Duration) (string, error) {
	detail := fmt.Sprintf("%s ahead of the relay's", ahead)
	switch {
	case ahead == 0:
		detail = "in step with the relay's"
	case ahead < 0:
		detail = fmt.Sprintf("%s behind the relay's", -ahead)
	}
	switch {
	case ahead.Abs() > skewFails:
		return "", explain(fmt.Errorf("clock is %s", detail), "this machine's clock is %s; set it, and keep it set with NTP: tokens are refused", detail)
	case ahead.Abs() > skewWarns:
		return detail, doubtful("keep it set with NTP; from %s on tokens are refused", skewFails)
	}
	return detail, nil
}

// credentials has the relay push to a device that can't be, and says how Apple took it.
func (p *probe) credentials(ctx context.Context) (string, error) {
	app := cmp.Or(p.wanted.App, p.known.App)
	if app == "" {
		return "", doubtful("not tried: give the app's name with --app, for there are no subscriptions yet")
	}
	pushed, err := check.APNs(ctx, p.client, app)
	switch {
	case err != nil:
		return "", p.settings.explain(err)
	case pushed.Outcome == agent.OutcomeUndeliverable:
		detail, err := refusedBy(app, &pushed.Result)
		if err == nil && pushed.AppMisconfigured {
			return "", explain(errors.New("APNs refuses nearly all devices of the app"),
				"the relay's app %s is misconfigured: its operator has to act", app)
		}
		return detail, err
	case pushed.Outcome == agent.OutcomePending:
		return "", explain(errors.New("no answer from APNs in time"),
			"the relay's way to Apple does not work for app %s; tell its operator, who has 'badgerelay probe' and 'badgerelay app list'", app)
	}
	return "", explain(fmt.Errorf("the count ended as %s", pushed.Outcome),
		"something else than Apple seems to answer the relay for app %s; tell its operator", app)
}

// refusedBy reads why the device that can't be was refused.
func refusedBy(app string, r *agent.Result) (string, error) {
	for _, removed := range r.Removed {
		if removed.Reason == "BadDeviceToken" {
			return fmt.Sprintf("app %s: an impossible device token came back as BadDeviceToken", app), nil
		}
	}
	detail := r.Detail
	for _, removed := range r.Removed {
		detail = strings.TrimSpace(detail + " " + removed.Reason)
	}
	return "", explain(fmt.Errorf("the device was refused: %s", detail),
		"Apple does not accept app %s from the relay; tell its operator, who has 'badgerelay probe'", app)
}

// mailServer logs in to each mail server as the daemon would, and counts one
// mailbox; and it looks whether the daemon's own door for Dovecot is there.
func (p *probe) mailServer(ctx context.Context) (string, error) {
	c := p.daemon
	if c == nil {
		missing := "not counted: there is no configuration; name it with --config"
		if p.wanted.Mailbox != "" { // it was asked for
			return "", doubtful("mailbox %s is %s", p.wanted.Mailbox, missing)
		}
		return missing, errSkipped
	}
	var details []string
	if c.Dovecot.Enabled {
		where, err := reachLocal(ctx, c)
		if err != nil {
			return "", explain(err, "Dovecot can't hand in its notifications at %s: is 'badgeagent serve' up?", where)
		}
		details = append(details, "notifications are taken at "+where)
	}
	if c.EWS.Enabled() {
		detail, err := p.exchange(ctx)
		if err != nil {
			return strings.Join(details, "; "), err
		}
		details = append(details, detail)
	}
	if c.IMAP.Address == "" {
		return strings.Join(details, "; "), nil
	}
	mailbox := p.mailbox()
	if mailbox == "" {
		return strings.Join(details, "; "), doubtful("IMAP log in not tried: give a mailbox with --mailbox, for there are no subscriptions yet")
	}
	checked, err := serve.CheckIMAP(ctx, c, mailbox)
	switch {
	case errors.Is(err, imap.ErrFolder):
		return "", explain(err, "the login for mailbox %s is accepted, and a folder of imap.folders is not shown; check their names, and with Dovecot's ACL plugin that acl_user gives the master user the rights of whom he opens (11-badgeagent-master.conf)", mailbox)
	case errors.Is(err, source.ErrElsewhere):
		return "", explain(err, "mailbox %s is not one of the mail server at %s; check mailboxes.suffix, or give another with --mailbox", mailbox, c.IMAP.Address)
	case errors.Is(err, source.ErrUnavailable):
		return "", explain(err, "the mail server at %s answers, and can't count mailbox %s now; its log says why: does the user exist?", c.IMAP.Address, mailbox)
	case errors.Is(err, source.ErrMailbox):
		return "", explain(err, "the mail server at %s refuses to show mailbox %s; check imap.master_user and its password, or imap.credentials_file, and mailboxes.suffix", c.IMAP.Address, mailbox)
	case err != nil:
		return "", explain(err, "the mail server's IMAP service at %s does not answer as it should; check imap.address, imap.security and imap.ca_file", c.IMAP.Address)
	}
	text := strings.Join(append(details, fmt.Sprintf("mailbox %s at %s has %d unread, %s", mailbox, c.IMAP.Address, checked.Count.Unread, watchedBy(checked.Watch, c))), "; ")
	if missing := checked.Count.Missing; len(missing) > 0 {
		return text, doubtful("it has no folder %q; the others are counted: check imap.folders", missing)
	}
	if checked.Lacking != "" {
		return text, doubtful("imap.watch is %s, and %s", c.IMAP.Watch, checked.Lacking)
	}
	return text, nil
}

// watchedBy says how a mailbox is watched.
func watchedBy(way string, c *config.Config) string {
	switch way {
	case "off":
		return "and is counted when Dovecot or the relay asks for it"
	case "poll":
		return fmt.Sprintf("and is looked at each %v", time.Duration(c.IMAP.PollInterval))
	}
	return "and is watched by " + strings.ToUpper(way)
}

// mailbox is the one to try; empty: none is known.
func (p *probe) mailbox() string { return cmp.Or(p.wanted.Mailbox, p.known.Mailbox) }

// exchange logs in to Exchange as the daemon would, counts one mailbox, makes a
// subscription and hears it.
func (p *probe) exchange(ctx context.Context) (string, error) {
	c := p.daemon
	cfg, err := serve.EWSConfig(c.EWS)
	if err != nil {
		return "", explain(err, "the login can't be read")
	}
	mailbox := p.mailbox()
	if mailbox == "" {
		return "", doubtful("Exchange not tried: give a mailbox with --mailbox, for there are no subscriptions yet")
	}
	r, err := ews.Check(ctx, cfg, mailbox)
	if err != nil {
		return "", explain(err, "%s, mailbox %s: %s", cmp.Or(r.Address, c.EWS.Address()), mailbox, ews.Advice(cfg, r, err))
	}
	return fmt.Sprintf("%s offers %s and took %s; by %s, mailbox %s has %d unread; a subscription was made and heard",
		r.Address, cmp.Or(strings.Join(r.Offered, ", "), "no authentication"), r.Scheme, cmp.Or(c.EWS.Access, ews.Impersonation), mailbox, r.Unread), nil
}

func reachLocal(ctx context.Context, c *config.Config) (where string, err error) {
	network, where := "unix", c.Local.Socket
	if where == "" {
		network, where = "tcp", c.Local.Address
	}
	conn, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, network, where)
	if err != nil {
		return where, err
	}
	return where, conn.Close()
}

// daemonConfig reads the daemon's configuration, if there is one.
func (p *probe) daemonConfig() error {
	file := p.app.config
	if file == "" && (configfile.Named("", config.DefaultPath) == "" || config.Unset(config.DefaultPath)) {
		return nil
	}
	c, _, err := config.Load(file)
	if err != nil {
		return explain(err, "the daemon's configuration is wrong; 'badgeagent config check' says where")
	}
	p.daemon = c
	return nil
}
