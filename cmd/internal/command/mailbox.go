package command

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"badgerelay/cmd/internal/configfile"
)

// maxMailbox is the contract's bound of a mailbox's name, in bytes.
const maxMailbox = 256

// CheckMailboxName refuses what the contract refuses as a mailbox, and nothing else: a
// back end or an import may have registered any other, and who finds such a mailbox in a
// list has to be able to look at it and to remove it. what is the flag or argument that
// names it. The error is a UsageError.
func CheckMailboxName(what, mailbox string) error {
	switch {
	case mailbox == "" || len(mailbox) > maxMailbox || !utf8.ValidString(mailbox):
		return Usage("%s %q: a mailbox is 1 to %d bytes of UTF-8", what, mailbox, maxMailbox)
	case strings.ContainsFunc(mailbox, unicode.IsControl):
		return Usage("%s %q has a control character in it", what, mailbox)
	}
	return nil
}

// CheckMailbox is CheckMailboxName for a mailbox that is new. It refuses slips, too:
// names are compared byte by byte, so that no count ever reached " ann@fabrikam.com" or
// "ann@fabrikam.com,bob@fabrikam.com".
func CheckMailbox(what, mailbox string) error {
	switch {
	case CheckMailboxName(what, mailbox) != nil:
		return CheckMailboxName(what, mailbox)
	case strings.TrimSpace(mailbox) != mailbox:
		return Usage("%s %q begins or ends with a space", what, mailbox)
	case strings.Count(mailbox, "@") > 1 && strings.ContainsAny(mailbox, ",; "):
		return Usage("%s %q is several mailboxes; name each by itself", what, mailbox)
	}
	return nil
}

// MailboxDoubt is what is odd about a mailbox that the contract takes, or empty.
// It is no error: where a mail server's users have no domain, their mailboxes have
// none either.
func MailboxDoubt(mailbox, organization string) string {
	if strings.Contains(mailbox, "@") {
		return ""
	}
	return "mailbox " + mailbox + " has no domain: counts of " + mailbox + "@" + cmp.Or(organization, "the domain") + " don't reach it"
}

// DomainDoubt is what is odd about an organization's name that the contract takes,
// or empty.
func DomainDoubt(organization string) string {
	if strings.Contains(organization, ".") {
		return ""
	}
	return "organization " + organization + " has no dot in its name; is that the whole domain?"
}

// NearestMailbox returns the known mailbox that differs from the one named by capital
// letters, by a missing domain, or by a letter or two; empty if there is none.
func NearestMailbox(mailbox string, known []string) string {
	user := func(s string) string { name, _, _ := strings.Cut(strings.ToLower(s), "@"); return name }
	for _, same := range []func(k string) bool{
		func(k string) bool { return strings.EqualFold(k, mailbox) },
		func(k string) bool { return user(k) == user(mailbox) },
	} {
		if i := slices.IndexFunc(known, same); i >= 0 {
			return known[i]
		}
	}
	if len(mailbox) < 6 { // two letters would be half of it
		return ""
	}
	return configfile.Nearest(mailbox, known)
}

// Subscribed is what came of putting a device on a mailbox.
type Subscribed struct {
	Mailbox string
	Created bool     // false: it was there already
	Left    []string // mailboxes that it is not on any more
	Others  []string // mailboxes that it is on, too
	Ends    time.Time
}

// PrintSubscribed prints it, or what it would be; to programs, the answer that says so.
func (t *Terminal) PrintSubscribed(answer any, s Subscribed) error {
	return t.Answer(answer, nil, s.would(), func() {
		t.saySubscribed(s)
		if !s.Ends.IsZero() {
			t.Say("It ends without renewal on %s.", Time(s.Ends))
		}
	})
}

func (t *Terminal) saySubscribed(s Subscribed) {
	switch {
	case len(s.Left) > 0:
		t.Say("The device left %s and is on %s now. Its icon follows that mailbox's next count.", strings.Join(s.Left, ", "), s.Mailbox)
	case s.Created && len(s.Others) > 0:
		t.Say("The device is on %s now, and on %s. Its icon follows the sum of their counts, once each has one.", s.Mailbox, strings.Join(s.Others, ", "))
	case s.Created:
		t.Say("The device is on %s now. Its icon follows the mailbox's next count.", s.Mailbox)
	default:
		t.Say("The device was on %s already; its registration is renewed.", s.Mailbox)
	}
}

func (s Subscribed) would() string {
	switch {
	case len(s.Left) > 0:
		return fmt.Sprintf("put the device on %s, and take it off %s", s.Mailbox, strings.Join(s.Left, ", "))
	case s.Created:
		return "put the device on " + s.Mailbox
	}
	return "renew the device's registration on " + s.Mailbox
}

// RemoveLong is the help of the commands that take a device off a mailbox.
const RemoveLong = `Takes a device off a mailbox. Where it is not on it there is nothing to do. Off its
last mailbox the icon keeps the number: publish 0 first if it is to be cleared.`

// Unsubscribed is what came of taking a device off a mailbox.
type Unsubscribed struct {
	Mailbox string `json:"mailbox"`
	Removed bool   `json:"removed"` // false: the device was not on it
}

// PrintUnsubscribed prints it, or what it would be.
func (t *Terminal) PrintUnsubscribed(u Unsubscribed) error {
	would := "take the device off " + u.Mailbox
	if !u.Removed {
		would = "change nothing: the device is not on " + u.Mailbox
	}
	return t.Answer(u, nil, would, func() {
		if u.Removed {
			t.Say("The device is not on %s any more.", u.Mailbox)
			return
		}
		t.Say("The device is not on %s: there is nothing to remove. 'subscription list' shows which devices are where.", u.Mailbox)
	})
}

// WarnNoDevice says of a mailbox that no device is on, which of those that have one may
// have been meant.
func (t *Terminal) WarnNoDevice(mailbox string, known []string) (near bool) {
	one := NearestMailbox(mailbox, known)
	if one != "" {
		t.Warn("no device is subscribed to %s; did you mean %s?", mailbox, one)
	}
	return one != ""
}

// Subscription is a line of a list of subscriptions.
type Subscription struct {
	Mailbox, App, DeviceToken string
	Created, Registered       string   // times as they are printed
	Others                    []string // mailboxes that the device is on, too
	Removed, Reason           string   // of those that ended, in the place of Registered and Others
}

// Subscriptions prints a list of subscriptions, or of those that ended, for people.
func (t *Terminal) Subscriptions(all []Subscription, removed bool) {
	several := slices.ContainsFunc(all, func(s Subscription) bool { return len(s.Others) > 0 })
	heading := "MAILBOX APP DEVICE_TOKEN CREATED REGISTERED"
	switch {
	case removed:
		heading = "MAILBOX APP DEVICE_TOKEN CREATED REMOVED REASON"
	case several:
		heading += " OTHER_MAILBOXES"
	}
	var rows [][]string
	for _, s := range all {
		row := []string{s.Mailbox, s.App, s.DeviceToken, s.Created}
		switch {
		case removed:
			row = append(row, s.Removed, s.Reason)
		case several:
			row = append(row, s.Registered, strings.Join(s.Others, ", "))
		default:
			row = append(row, s.Registered)
		}
		rows = append(rows, row)
	}
	t.Table(heading, rows)
}

// Registration is the flags that name a device on a mailbox.
type Registration struct{ Mailbox, App, DeviceToken string }

// Flags adds them, all required.
func (r *Registration) Flags(c *cobra.Command, mailboxes, apps cobra.CompletionFunc) {
	f := c.Flags()
	f.StringVar(&r.Mailbox, "mailbox", "", "the `mailbox` (required)")
	f.StringVar(&r.App, "app", "", "the `name` of the app in the relay's configuration (required)")
	f.StringVar(&r.DeviceToken, "device-token", "", "the device `token` in hexadecimal (required)")
	Require(c, "mailbox", "app", "device-token")
	FlagCompletion(c, "mailbox", mailboxes)
	FlagCompletion(c, "app", apps)
}
