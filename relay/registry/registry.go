package registry

import (
	"context"
	"time"

	"badgerelay/apns"
	"badgerelay/auth"
	"badgerelay/relay"
)

// Registry is what the relay knows for good.
//
// All methods are safe for concurrent use. A change that a method acknowledged
// is durable and visible to every later call. Times are kept in UTC to the
// millisecond. Slices and strings that are passed in are not kept, what is
// returned is the caller's. Names of organizations may be given in any case.
//
// Every method may return an error that wraps ErrUnavailable, or the context's
// error. A context that ends stops the waiting for the database, not a change
// that has begun: if the context's error comes back, nothing was changed. An
// argument that breaks a rule is an *InvalidError. Nothing is retried here.
type Registry interface {
	// What the relay itself calls. Scan goes by organization and mailbox, reads
	// one state of the database, and delays no writer. Lookup takes any number of
	// keys, reads hundreds in one query, and does not look at whether their
	// organizations are enabled. Refuse and ForgetRefusals work in transactions
	// of up to 1,000; after an error some may be done, and repeating is harmless.
	relay.Subscriptions

	// Remove ends subscriptions and says of each whether it did: false if the
	// device registered again since, or the subscription is gone already. It
	// works in transactions of up to 1,000; after an error some may be removed,
	// and repeating is harmless.
	Remove(ctx context.Context, removals []relay.Removal) ([]bool, error)

	Changes
	// DryRun returns, for one call, what changes nothing and answers as the registry
	// would: each transaction of it is done up to its end and rolled back. Nobody is told
	// of it. What a transaction would have changed, the next of the same call knows, save
	// of PurgeOrganization, which has one. ImportSubscriptions may be called again to go
	// on with an import.
	DryRun() Changes

	// GetOrganization returns one. ErrOrganizationNotFound.
	GetOrganization(ctx context.Context, name string) (Organization, error)
	// OrganizationByID returns one. ErrOrganizationNotFound.
	OrganizationByID(ctx context.Context, id relay.OrganizationID) (Organization, error)
	// ListOrganizations returns a page of them by name, and the token of the
	// next; empty after the last.
	ListOrganizations(ctx context.Context, f OrganizationFilter, page Page) ([]Organization, string, error)

	// ListCredentials returns all of an organization, newest start first.
	// ErrOrganizationNotFound.
	ListCredentials(ctx context.Context, org relay.OrganizationID) ([]Credential, error)
	// CredentialsByX5T of auth.Keys leaves out what removed organizations have.
	auth.Keys
	// TouchCredentials remembers when tokens of credentials were last accepted,
	// by credential id. Unknown ids and older times are passed over.
	TouchCredentials(ctx context.Context, used map[string]time.Time) error

	// ListSubscriptions returns a page by mailbox, app and device token, and the
	// token of the next page; empty after the last. ErrOrganizationNotFound.
	ListSubscriptions(ctx context.Context, f SubscriptionFilter, page Page) ([]Subscription, string, error)
	// SharedDevicesOf returns the devices of a mailbox that are shared with others, up
	// to 1,000 by app and device token, with all their parts: for operators. Others
	// are told what SharedDevice.Own leaves.
	SharedDevicesOf(ctx context.Context, key relay.MailboxKey) ([]relay.SharedDevice, error)
	// Mailboxes returns up to limit mailboxes with a live subscription that sort,
	// by their bytes, after the given one. Empty: from the first.
	Mailboxes(ctx context.Context, org relay.OrganizationID, after string, limit int) ([]string, error)
	// Counts returns how much there is.
	Counts(ctx context.Context) (Counts, error)
	// TakesChanges reports whether the database took the last change that it was
	// asked for. One that is full or read-only can be read all the same.
	TakesChanges() bool

	// OnChange has fn called with the changes of each commit, in the order of
	// the commits, after the commit and before the call that made it returns. fn
	// is never called twice at once. It must be quick, must not keep the
	// slice, and must not call a method that changes the registry. After
	// cancel has returned no call begins.
	OnChange(fn func([]Change)) (cancel func())

	// Run ends subscriptions whose lifetime has passed, and forgets removed ones,
	// and removed organizations, after RemovedRetention, until ctx is done. It returns nil then: what fails
	// is logged and tried again at the next turn. Before that only
	// ErrChangesMissed ends it, where several relays share the database.
	Run(ctx context.Context) error
	// Close waits for the calls in progress. Later ones are ErrUnavailable.
	Close() error
}

// Changes is what operators and agents change.
type Changes interface {
	// AddOrganization enrols an organization, enabled. ErrOrganizationExists,
	// ErrOrganizationRemoved.
	AddOrganization(ctx context.Context, o NewOrganization) (Organization, error)
	// UpdateOrganization changes what is set in u, and returns the organization
	// as it is then. What exists beyond a lowered limit stays.
	// ErrOrganizationNotFound.
	UpdateOrganization(ctx context.Context, name string, u OrganizationUpdate) (Organization, error)
	// RemoveOrganization removes it with its credentials and subscriptions: no
	// method finds them any more, save Lookup, and those below. The only change told is
	// ChangeOrganizationRemoved. ErrOrganizationNotFound.
	RemoveOrganization(ctx context.Context, name string) error
	// RestoreOrganization brings a removed one back with what it had, disabled.
	// ErrOrganizationNotFound if none of this name was removed, or not within
	// RemovedRetention.
	RestoreOrganization(ctx context.Context, name string) (Organization, error)
	// PurgeOrganization forgets a removed one now, which Run does after
	// RemovedRetention. It can't be undone. It works in transactions of up to 1,000 rows;
	// from the first on the organization can't be restored or listed, while its name is
	// free after the last. After an error, repeating goes on, and so does Run.
	// ErrOrganizationNotFound if none of this name was removed.
	PurgeOrganization(ctx context.Context, name string) error

	// AddCredential registers a certificate. ErrOrganizationNotFound,
	// ErrCredentialExists; for a published one ErrCredentialRemoved.
	AddCredential(ctx context.Context, org relay.OrganizationID, c NewCredential) (Credential, error)
	// RemoveCredential removes the one with this id or, in 40 hexadecimal digits
	// of any case, this SHA-1 thumbprint. Until the certificate ends it does
	// not come back by being published. ErrCredentialNotFound.
	RemoveCredential(ctx context.Context, org relay.OrganizationID, idOrThumbprint string) error

	// Subscribe puts a device on a mailbox or renews that; a new one takes it off
	// the organization's other mailboxes, as far as r does not keep them.
	// ErrOrganizationNotFound, *LimitError.
	Subscribe(ctx context.Context, org relay.OrganizationID, r Registration) (SubscribeResult, error)
	// SetDevice declares all mailboxes of the organization that a device shows. It
	// is done as a whole or, after an error, not at all.
	// ErrOrganizationNotFound, *LimitError.
	SetDevice(ctx context.Context, org relay.OrganizationID, d DeviceMailboxes) (SetDeviceResult, error)
	// Unsubscribe takes a device off a mailbox and keeps no trace of it.
	// ErrSubscriptionNotFound.
	Unsubscribe(ctx context.Context, org relay.OrganizationID, r Registration) error
	// ImportSubscriptions does what Subscribe does for each, in order, in
	// transactions of up to ImportBatch. Refused ones are in the result and hinder no
	// others. After an error the result tells what was kept until then.
	// ErrOrganizationNotFound.
	ImportSubscriptions(ctx context.Context, org relay.OrganizationID, rs []Registration) (ImportResult, error)
	// Restore brings back subscriptions that Remove or their lifetime ended, and
	// tells what became of each that r asks for, in parts of up to 1,000, by
	// organization, mailbox, app and device token. It leaves out those whose device has
	// registered elsewhere since, or was taken off (ErrSuperseded), and those beyond
	// the limits of their organization (*LimitError); these can be restored later.
	// A restored subscription counts as registered now. Each part is a
	// transaction, told of when it is done; after an error some may be restored,
	// and repeating goes on with the rest. An error of tell ends it and is
	// returned as it is. ErrOrganizationNotFound.
	Restore(ctx context.Context, r RestoreRequest, tell func([]Restoration) error) error
}

// RemovedRetention is how long a removed subscription can be listed and
// restored, and a removed organization restored; contract, badgerelay.v1.ListSubscriptionsRequest.removed
// and badgerelay.v1.AdminService.RestoreOrganization.
const RemovedRetention = 30 * 24 * time.Hour

// ReasonExpired is the removal reason of a subscription that was not renewed.
const ReasonExpired = apns.Reason("Expired")

// Page asks for a part of a list.
type Page struct {
	Size  int    // 1 to MaxPageSize; 0: DefaultPageSize
	Token string // as returned with the page before; empty: the first page
}

// Sizes of pages; contract, badgerelay.v1.ListSubscriptionsRequest.page_size.
const (
	DefaultPageSize = 100
	MaxPageSize     = 1000
)

// Limits bounds what an organization may use. The zero value is no limits.
type Limits struct {
	Apps             []string // names of the apps; empty: all
	MaxMailboxes     uint64   // with a live subscription; 0: unlimited
	MaxSubscriptions uint64   // live; 0: unlimited
	MaxStreams       uint32   // open at one relay; 0: the relay's own limit. Not enforced here.
}

// NewOrganization is an organization to enrol.
type NewOrganization struct {
	Name        string // a DNS name of 1 to 253 bytes, any case
	Limits      Limits
	MetadataURL string // https; empty: none
}

// OrganizationFilter says which organizations to list.
type OrganizationFilter struct {
	Removed bool // those that can be restored, instead of the others
}

// OrganizationUpdate changes what is not nil.
type OrganizationUpdate struct {
	Enabled     *bool
	Limits      *Limits
	MetadataURL *string
}

// Organization is a tenant of the relay.
type Organization struct {
	ID          relay.OrganizationID // never another's
	Name        string               // lower case
	Enabled     bool
	Limits      Limits
	MetadataURL string
	CreatedAt   time.Time
	RemovedAt   time.Time // zero: not removed

	Mailboxes     uint64 // with a live subscription
	Subscriptions uint64 // live
}

// NewCredential is a certificate to register.
type NewCredential struct {
	Certificate []byte    // DER or PEM, at most MaxCertificateSize, RSA of 2048 to 8192 bits
	StartAt     time.Time // zero: the certificate's NotBefore; not before that
	EndAt       time.Time // zero: the certificate's NotAfter; not after that
	// Published: found in the organization's metadata document and not given by
	// a person, who alone brings back what a person has removed.
	Published bool
}

// Credential is a registered certificate: what tokens are verified with, and what
// else is known of it.
type Credential struct {
	auth.Credential
	X5T        [20]byte // SHA-1 of the certificate: an index, not an identity
	KeySHA256  [32]byte // SHA-256 of the subject public key info: the key's identity
	CreatedAt  time.Time
	LastUsedAt time.Time // zero: never
}

// Registration names a device of an app and a mailbox.
type Registration struct {
	Mailbox string // 1 to relay.MaxMailboxSize bytes of UTF-8
	App     string // 1 to MaxAppSize bytes of UTF-8
	Device  apns.DeviceToken

	// KeepOthers leaves the device on the organization's other mailboxes, up to
	// MaxDeviceMailboxes. Otherwise one that is new on the mailbox leaves them.
	KeepOthers bool
	// KeepSince leaves it on those at least on which it was registered at this
	// time or later, as an import does that began then. Zero: on none.
	KeepSince time.Time
}

// SubscribeResult is what became of a Registration.
type SubscribeResult struct {
	Subscription  Subscription
	Created       bool     // false: renewed
	LeftMailboxes []string // the mailboxes that the device left, in the order of their bytes
}

// DeviceMailboxes is a device of an app with its whole list of mailboxes.
type DeviceMailboxes struct {
	App    string // 1 to MaxAppSize bytes of UTF-8
	Device apns.DeviceToken
	// Mailboxes are 0 to MaxDeviceMailboxes, each of 1 to relay.MaxMailboxSize
	// bytes of UTF-8, in any order; one that comes twice counts once.
	Mailboxes []string
}

// SetDeviceResult says what became of the mailboxes, each in the order of their
// bytes.
type SetDeviceResult struct {
	Added, Removed []string
	Kept           []string  // renewed
	ExpiresAt      time.Time // of all subscriptions; zero: never, or there is none
}

// Subscription is one device on one mailbox.
type Subscription struct {
	Organization relay.OrganizationID
	Mailbox      string
	App          string
	Device       apns.DeviceToken
	CreatedAt    time.Time
	RegisteredAt time.Time // last Subscribe
	ExpiresAt    time.Time // zero: never

	// OtherMailboxes are those of the organization that the device of the app is
	// on beside this one, in the order of their bytes. Live ones only.
	OtherMailboxes []string

	// Quarantine is what is remembered of APNs' refusals of the device; nil:
	// nothing.
	Quarantine *relay.Quarantine

	RemovedAt     time.Time // zero: live
	RemovalReason apns.Reason
}

// SubscriptionFilter says which subscriptions to list.
type SubscriptionFilter struct {
	Organization relay.OrganizationID
	Mailbox      string // empty: all
	Removed      bool   // those that Remove or their lifetime ended within RemovedRetention, instead of the live ones
}

// RestoreRequest says which of the removed subscriptions to restore. The zero
// value means all that there are.
type RestoreRequest struct {
	Organization relay.OrganizationID // 0: any
	Mailbox      string               // empty: any, as the next two
	App          string
	Reason       apns.Reason
	From, Until  time.Time // removed at From or later, and before Until; zero: at any time
}

// Restoration is what became of a removed subscription.
type Restoration struct {
	OrganizationName string
	Subscription     Subscription // as it was when it ended
	Err              error        // nil: restored; ErrSuperseded or *LimitError
}

// ImportResult counts what became of an import.
type ImportResult struct {
	Created, Renewed uint64
	Rejections       []Rejection // in the order of the input
}

// Rejection is a refused Registration of an import.
type Rejection struct {
	Index int   // in the input, from 0
	Err   error // *InvalidError or *LimitError
}

// Entry is a live subscription with its mailbox.
type Entry = relay.Entry

// Counts says how much there is.
type Counts struct {
	Organizations uint64
	Credentials   uint64
	Mailboxes     uint64 // with a live subscription; one name in two organizations counts twice
	Subscriptions uint64 // live
}
