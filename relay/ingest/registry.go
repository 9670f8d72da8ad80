package ingest

import (
	"context"

	"badgerelay/auth"
	"badgerelay/relay"
	"badgerelay/relay/internal/service"
	"badgerelay/relay/registry"
)

// AgentRegistry is what the agents' door asks of the registry.
type AgentRegistry interface {
	service.Registry
	OrganizationByID(ctx context.Context, id relay.OrganizationID) (registry.Organization, error)
	auth.Keys
	ListCredentials(ctx context.Context, org relay.OrganizationID) ([]registry.Credential, error)
	SharedDevicesOf(ctx context.Context, key relay.MailboxKey) ([]relay.SharedDevice, error)
	Mailboxes(ctx context.Context, org relay.OrganizationID, after string, limit int) ([]string, error)
	OnChange(fn func([]registry.Change)) (cancel func())
}
