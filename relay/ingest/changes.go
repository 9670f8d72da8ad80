package ingest

import (
	"badgerelay/auth"
	"badgerelay/relay"
	"badgerelay/relay/registry"
)

// Tell tells a relay's and a validator's memories what is new in the registry. Whoever
// builds the process has the registry call it (Registry.OnChange), before a Server
// listens to the same feed.
func Tell(r *relay.Relay, v *auth.Validator, changes []registry.Change) {
	var mailboxes []relay.MailboxKey
	var shared []relay.DeviceKey
	for i := range changes {
		c := &changes[i]
		switch c.Kind {
		case registry.ChangeSubscribed, registry.ChangeUnsubscribed:
			mailboxes = append(mailboxes, relay.MailboxKey{Organization: c.Organization, Mailbox: c.Mailbox})
		case registry.ChangeCredentialRemoved:
			v.RevokeCredential(c.CredentialID)
		case registry.ChangeOrganizationChanged:
			v.RevokeOrganization(int64(c.Organization))
			r.SumsChanged()
			if c.OrganizationEnabled {
				r.OrganizationBack(c.Organization)
			}
		case registry.ChangeOrganizationRemoved:
			v.RevokeOrganization(int64(c.Organization))
			r.OrganizationGone(c.Organization)
		case registry.ChangeDeviceShared:
			shared = append(shared, relay.DeviceKey{App: c.App, Device: c.Device})
		}
	}
	if len(shared) > 0 {
		r.DevicesShared(shared)
	}
	if len(mailboxes) > 0 {
		r.SubscriptionsChanged(mailboxes)
	}
}
