package registry

import (
	"errors"
	"fmt"
)

// The conditions callers tell apart. They come wrapped; use errors.Is.
var (
	ErrOrganizationNotFound = errors.New("organization not found")
	ErrOrganizationExists   = errors.New("organization exists")
	// ErrOrganizationRemoved: one of this name was removed, and can be restored.
	ErrOrganizationRemoved = errors.New("organization was removed")
	ErrCredentialNotFound  = errors.New("credential not found")
	// ErrCredentialExists: the organization has this certificate already, or
	// its key belongs to another organization.
	ErrCredentialExists = errors.New("credential exists")
	// ErrCredentialRemoved: a person has removed the certificate that is
	// published.
	ErrCredentialRemoved    = errors.New("credential was removed")
	ErrSubscriptionNotFound = errors.New("subscription not found")
	// ErrSuperseded: the device has registered elsewhere since the subscription
	// ended, or was taken off its mailbox.
	ErrSuperseded = errors.New("subscription is superseded")

	// ErrUnavailable: the database is gone, locked by another process, full,
	// read-only or closed. Nothing of the call was kept, save where its doc
	// says otherwise. The same call may succeed later, without a restart.
	ErrUnavailable = errors.New("registry unavailable")
	// ErrNewerSchema: a newer version of the program has been at this database.
	ErrNewerSchema = errors.New("database was written by a newer version")
	// ErrChangesMissed: changes of other relays are lost, so what is in memory
	// may be wrong. The process should end and be started again.
	ErrChangesMissed = errors.New("changes of other relays were missed")
)

// InvalidError is an argument that breaks a rule.
type InvalidError struct {
	Field  string // its name in the contract: "mailbox", "metadata_url"
	Detail string // the rule, for people; never holds a device token
}

// Error implements error.
func (e *InvalidError) Error() string { return e.Field + " " + e.Detail }

// isMisconfigured reports whether another database would have to be named.
func isMisconfigured(err error) bool {
	_, invalid := errors.AsType[*InvalidError](err)
	return invalid || errors.Is(err, ErrNewerSchema)
}

// The limits a *LimitError names.
const (
	LimitApps          = "apps"
	LimitMailboxes     = "max_mailboxes"
	LimitSubscriptions = "max_subscriptions"
	// LimitDeviceMailboxes is MaxDeviceMailboxes.
	LimitDeviceMailboxes = "device_mailboxes"
)

// LimitError is a subscription beyond what its organization may use.
type LimitError struct {
	Limit string // one of the Limit constants
	Max   uint64 // the limit's value; with LimitApps, the number of apps allowed
	App   string // with LimitApps: the app that is not among them
}

// Error implements error.
func (e *LimitError) Error() string {
	if e.Limit == LimitApps {
		return fmt.Sprintf("organization may not use app %q", e.App)
	}
	if e.Limit == LimitDeviceMailboxes {
		return fmt.Sprintf("device is on %d mailboxes of the organization, the most that is allowed", e.Max)
	}
	return fmt.Sprintf("organization is at its limit %s of %d", e.Limit, e.Max)
}

// CredentialExistsError says where the key is registered. It is an
// ErrCredentialExists, and for operators only: an organization must not learn of
// another.
type CredentialExistsError struct {
	Organization string
	Removed      bool // that organization was, and can be restored
}

// Error implements error.
func (e *CredentialExistsError) Error() string {
	if e.Removed {
		return ErrCredentialExists.Error() + ": registered for " + e.Organization + ", which was removed and can be restored or purged"
	}
	return ErrCredentialExists.Error() + ": registered for " + e.Organization
}

// Is makes it an ErrCredentialExists.
func (e *CredentialExistsError) Is(target error) bool { return target == ErrCredentialExists }
