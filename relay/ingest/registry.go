package ingest

import (
	"context"

	"badgerelay/auth"
	"badgerelay/relay"
	"badgerelay/relay/registry"
)

// Registrations makes, ends and lists subscriptions; registry.Registry says how.
type Registrations interface {
	Subscribe(ctx context.Context, org relay.OrganizationID, r registry.Registration) (registry.SubscribeResult, error)
	SetDevice(ctx context.Context, org relay.OrganizationID, d registry.DeviceMailboxes) (registry.SetDeviceResult, error)
	Unsubscribe(ctx context.Context, org relay.OrganizationID, r registry.Registration) error
	ImportSubscriptions(ctx context.Context, org relay.OrganizationID, rs []registry.Registration) (registry.ImportResult, error)
	ListSubscriptions(ctx context.Context, f registry.SubscriptionFilter, page registry.Page) ([]registry.Subscription, string, error)
}

// AgentRegistry is what the agents' door asks of the registry.
type AgentRegistry interface {
	Registrations
	OrganizationByID(ctx context.Context, id relay.OrganizationID) (registry.Organization, error)
	auth.Keys
	ListCredentials(ctx context.Context, org relay.OrganizationID) ([]registry.Credential, error)
	SharedDevicesOf(ctx context.Context, key relay.MailboxKey) ([]relay.SharedDevice, error)
	Mailboxes(ctx context.Context, org relay.OrganizationID, after string, limit int) ([]string, error)
	OnChange(fn func([]registry.Change)) (cancel func())
}

// OperatorRegistry is what operators ask of the registry, beside subscriptions.
type OperatorRegistry interface {
	AddOrganization(ctx context.Context, o registry.NewOrganization) (registry.Organization, error)
	GetOrganization(ctx context.Context, name string) (registry.Organization, error)
	ListOrganizations(ctx context.Context, f registry.OrganizationFilter, page registry.Page) ([]registry.Organization, string, error)
	UpdateOrganization(ctx context.Context, name string, u registry.OrganizationUpdate) (registry.Organization, error)
	RemoveOrganization(ctx context.Context, name string) error
	RestoreOrganization(ctx context.Context, name string) (registry.Organization, error)
	PurgeOrganization(ctx context.Context, name string) error
	AddCredential(ctx context.Context, org relay.OrganizationID, c registry.NewCredential) (registry.Credential, error)
	ListCredentials(ctx context.Context, org relay.OrganizationID) ([]registry.Credential, error)
	RemoveCredential(ctx context.Context, org relay.OrganizationID, idOrThumbprint string) error
	Restore(ctx context.Context, r registry.RestoreRequest, tell func([]registry.Restoration) error) error
	Counts(ctx context.Context) (registry.Counts, error)
}
