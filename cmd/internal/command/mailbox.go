package command

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxMailbox is the contract's bound of a mailbox's name, in bytes.
const MaxMailbox = 256

// CheckMailbox refuses what the contract refuses as a mailbox, and what is none
// though the contract would take it: names are compared byte by byte, so that no
// count ever reached " ann@fabrikam.com" or "ann@fabrikam.com,bob@fabrikam.com".
// what is the flag or argument that names it. The error is a UsageError.
func CheckMailbox(what, mailbox string) error {
	switch {
	case mailbox == "" || len(mailbox) > MaxMailbox || !utf8.ValidString(mailbox):
		return Usage("%s %q: a mailbox is 1 to %d bytes of UTF-8", what, mailbox, MaxMailbox)
	case strings.TrimSpace(mailbox) != mailbox:
		return Usage("%s %q begins or ends with a space", what, mailbox)
	case strings.ContainsFunc(mailbox, unicode.IsControl):
		return Usage("%s %q has a control character in it", what, mailbox)
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
	if organization == "" {
		organization = "the domain"
	}
	return "mailbox " + mailbox + " has no domain: counts of " + mailbox + "@" + organization + " don't reach it"
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
	return Nearest(mailbox, known)
}
