package registry

import (
	"sync"

	"badgerelay/apns"
	"badgerelay/relay"
)

// ChangeKind is what a Change is about.
type ChangeKind uint8

// The kinds.
const (
	ChangeSubscribed          ChangeKind = iota + 1 // a device came to Mailbox or was renewed
	ChangeUnsubscribed                              // a device left Mailbox or was removed
	ChangeCredentialAdded                           // CredentialID of KeySHA256
	ChangeCredentialRemoved                         // CredentialID of KeySHA256
	ChangeOrganizationChanged                       // enrolled, enabled, disabled, limits or metadata address
	ChangeOrganizationRemoved                       // with all it had
	ChangeDeviceShared                              // Device of App is on several mailboxes, or is not any more
)

var changeKindNames = [...]string{
	"none", "subscribed", "unsubscribed", "credential_added", "credential_removed",
	"organization_changed", "organization_removed", "device_shared",
}

// String returns the kind's name in logs.
func (k ChangeKind) String() string { return changeKindNames[k] }

// Change is one thing that is different since a commit.
type Change struct {
	Kind                ChangeKind
	Organization        relay.OrganizationID
	OrganizationName    string
	OrganizationEnabled bool // with ChangeOrganizationChanged

	Mailbox string // with the kinds of subscriptions
	Live    bool   // the mailbox has a live subscription after the commit

	App    string           // with ChangeDeviceShared, of no organization
	Device apns.DeviceToken // with ChangeDeviceShared

	CredentialID string   // with the kinds of credentials
	KeySHA256    [32]byte // with the kinds of credentials
}

// changes are those of a transaction, told after its commit.
type changes []Change

func (cs *changes) organizationChanged(kind ChangeKind, o Organization) {
	*cs = append(*cs, Change{Kind: kind, Organization: o.ID, OrganizationName: o.Name, OrganizationEnabled: o.Enabled})
}

func (cs *changes) credentialChanged(kind ChangeKind, c Credential) {
	*cs = append(*cs, Change{Kind: kind, Organization: relay.OrganizationID(c.OrganizationID), OrganizationName: c.Organization,
		CredentialID: c.ID, KeySHA256: c.KeySHA256})
}

// feed tells listeners of changes.
type feed struct {
	mu        sync.Mutex // guards listeners and next; never held during a call
	listeners map[int]func([]Change)
	order     []int
	next      int
}

func (f *feed) add(fn func([]Change)) (cancel func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.listeners == nil {
		f.listeners = make(map[int]func([]Change))
	}
	id := f.next
	f.next++
	f.listeners[id] = fn
	f.order = append(f.order, id)
	return func() { f.drop(id) }
}

func (f *feed) drop(id int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.listeners, id)
	for i, o := range f.order {
		if o == id {
			f.order = append(f.order[:i:i], f.order[i+1:]...)
			return
		}
	}
}

// publish calls the listeners, in the order they came. The caller sees to it
// that calls don't overlap.
func (f *feed) publish(changes []Change) {
	if len(changes) == 0 {
		return
	}
	f.mu.Lock()
	order := f.order[:len(f.order):len(f.order)]
	f.mu.Unlock()
	for _, id := range order {
		f.mu.Lock()
		fn := f.listeners[id]
		f.mu.Unlock()
		if fn != nil {
			fn(changes)
		}
	}
}
