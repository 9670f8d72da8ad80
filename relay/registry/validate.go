package registry

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"badgerelay/relay"
)

// Bounds of our own choice; the contract names those of mailboxes and names.
const (
	MaxAppSize         = 255 // bytes; a bundle id is far shorter
	MaxMetadataURLSize = 2048
	maxApps            = 1000 // in the limits of one organization
	// MaxDeviceMailboxes is how many mailboxes of an organization a device of an
	// app may be on: more than a person reads. Each is a part of its sum.
	MaxDeviceMailboxes = 100
)

// Bounds of a domain's name and of its labels (RFC 1035, section 2.3.4).
const (
	maxDomain = 253 // without the final dot
	maxLabel  = 63
)

// NormalizeOrganization returns the name in lower case, which is how
// organizations are kept and compared. A name that is not a DNS name of 1 to
// 253 bytes (RFC 1123, section 2.1: labels of 1 to 63 letters, digits and inner
// hyphens) is an *InvalidError that says which rule it breaks.
func NormalizeOrganization(name string) (string, error) {
	if broken := notADomain(name); broken != "" {
		return "", &InvalidError{"name", "is not a domain name: " + broken}
	}
	return strings.ToLower(name), nil
}

// notADomain says why a name is no domain's; empty: it is one.
func notADomain(name string) string {
	other := strings.IndexFunc(name, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '.'
	})
	switch {
	case name == "":
		return "it is empty"
	case strings.TrimSpace(name) != name:
		return "it begins or ends with a space"
	case strings.Contains(name, "://"):
		return "it is an address; the domain alone is needed"
	case strings.Contains(name, "@"):
		return "it is a mailbox; what stands after the @ is needed"
	case other >= 0:
		r, _ := utf8.DecodeRuneInString(name[other:])
		return fmt.Sprintf("it has a %q, and only letters from a to z, digits, hyphens and dots are allowed; DNS writes other letters with xn--", r)
	case len(name) > maxDomain:
		return fmt.Sprintf("it has %d bytes, and %d are allowed", len(name), maxDomain)
	}
	for label := range strings.SplitSeq(name, ".") {
		switch {
		case label == "":
			return "a dot begins or ends it, or follows another"
		case len(label) > maxLabel:
			return fmt.Sprintf("a part between dots has %d bytes, and %d are allowed", len(label), maxLabel)
		case label[0] == '-', label[len(label)-1] == '-':
			return "a hyphen begins or ends a part between dots"
		}
	}
	return ""
}

func (r Registration) validate() error {
	if err := validateMailbox(r.Mailbox); err != nil {
		return err
	}
	if err := validateApp("app", r.App); err != nil {
		return err
	}
	if r.Device.IsZero() {
		return &InvalidError{"device_token", "is missing"}
	}
	return nil
}

// validate reports what is wrong with a list. The field names one of its
// mailboxes by its position, from 0.
func (m DeviceMailboxes) validate() error {
	if err := validateApp("app", m.App); err != nil {
		return err
	}
	if m.Device.IsZero() {
		return &InvalidError{"device_token", "is missing"}
	}
	if TooManyMailboxes(m.Mailboxes) {
		return &InvalidError{"mailboxes", "has more than 100 names"}
	}
	for i, mailbox := range m.Mailboxes {
		if rule := NameRule(mailbox, relay.MaxMailboxSize); rule != "" {
			return &InvalidError{fmt.Sprintf("mailboxes[%d]", i), rule}
		}
	}
	return nil
}

// TooManyMailboxes reports whether these are more than MaxDeviceMailboxes, where a
// name that comes twice counts once.
func TooManyMailboxes(mailboxes []string) bool {
	names := make(map[string]struct{}, min(len(mailboxes), MaxDeviceMailboxes+1))
	for _, mailbox := range mailboxes {
		if names[mailbox] = struct{}{}; len(names) > MaxDeviceMailboxes {
			return true
		}
	}
	return false
}

// request returns what a list asks for, each mailbox once.
func (m DeviceMailboxes) request() request {
	mailboxes := slices.Clone(m.Mailboxes)
	slices.Sort(mailboxes)
	return request{device: device{m.App, m.Device}, mailboxes: slices.Compact(mailboxes), whole: true}
}

// NameRule returns the rule that a name of a mailbox, an app or an agent breaks; empty:
// none. A control character (Unicode's Cc) is a slip, or meant to trick who reads a list.
func NameRule(name string, most int) string {
	switch {
	case name == "":
		return "is empty"
	case len(name) > most:
		return fmt.Sprintf("is longer than %d bytes", most)
	case !utf8.ValidString(name):
		return "is not UTF-8"
	case strings.ContainsFunc(name, unicode.IsControl):
		return "has a control character in it"
	}
	return ""
}

func validateMailbox(mailbox string) error {
	if rule := NameRule(mailbox, relay.MaxMailboxSize); rule != "" {
		return &InvalidError{"mailbox", rule}
	}
	return nil
}

func validateApp(field, app string) error {
	if rule := NameRule(app, MaxAppSize); rule != "" {
		return &InvalidError{field, rule}
	}
	return nil
}

func validateMetadataURL(s string) error {
	if s == "" {
		return nil
	}
	u, err := url.Parse(s)
	if err != nil || len(s) > MaxMetadataURLSize || u.Scheme != "https" || u.Hostname() == "" || u.User != nil {
		return &InvalidError{"metadata_url", "is not an https address of up to 2048 bytes without credentials"}
	}
	return nil
}

// normalize returns a copy of the limits with the apps sorted and each once.
func (l Limits) normalize() (Limits, error) {
	if len(l.Apps) > maxApps {
		return l, &InvalidError{"limits.apps", "has more than 1000 names"}
	}
	for _, app := range l.Apps {
		if err := validateApp("limits.apps", app); err != nil {
			return l, err
		}
	}
	const most = 1<<63 - 1 // what a database's integer holds
	if l.MaxMailboxes > most {
		return l, &InvalidError{"limits.max_mailboxes", "is beyond 2^63-1"}
	}
	if l.MaxSubscriptions > most {
		return l, &InvalidError{"limits.max_subscriptions", "is beyond 2^63-1"}
	}
	l.Apps = slices.Clone(l.Apps)
	slices.SortFunc(l.Apps, strings.Compare)
	l.Apps = slices.Compact(l.Apps)
	return l, nil
}

// allows reports, as a *LimitError, whether the app may be used.
func (l Limits) allows(app string) error {
	if len(l.Apps) == 0 || slices.Contains(l.Apps, app) {
		return nil
	}
	return &LimitError{Limit: LimitApps, Max: uint64(len(l.Apps)), App: app}
}

func (p Page) size() (int, error) {
	if p.Size < 0 || p.Size > MaxPageSize {
		return 0, &InvalidError{"page_size", "is not 1 to 1000"}
	}
	if p.Size == 0 {
		return DefaultPageSize, nil
	}
	return p.Size, nil
}
