package registry

import (
	"database/sql"
	"encoding/json"
	"fmt"
)

const organizationColumns = `id, name, enabled, apps, max_mailboxes, max_subscriptions, max_streams, metadata_url,
	created_at, removed_at, mailboxes, subscriptions`

// A removed organization is there for nobody but who restores or purges it, and one
// that is being purged for who goes on with that.
const (
	organizationByName  = `SELECT ` + organizationColumns + ` FROM organizations WHERE name = $1 AND removed_at IS NULL`
	organizationByID    = `SELECT ` + organizationColumns + ` FROM organizations WHERE id = $1 AND removed_at IS NULL`
	removedOrganization = `SELECT ` + organizationColumns + ` FROM organizations WHERE name = $1 AND removed_at IS NOT NULL AND NOT purging`
	purgedOrganization  = `SELECT ` + organizationColumns + ` FROM organizations WHERE name = $1 AND removed_at IS NOT NULL`
	purgingOrganization = `SELECT ` + organizationColumns + ` FROM organizations WHERE id = $1 AND purging`
)

// isThere is a condition of queries of what an organization has; id is its
// placeholder.
func isThere(id string) string {
	return `EXISTS (SELECT 1 FROM organizations WHERE id = ` + id + ` AND removed_at IS NULL)`
}

// scanOrganization reads organizationColumns.
func scanOrganization(row scanner) (Organization, error) {
	var o Organization
	var apps string
	var created int64
	var removed sql.NullInt64
	err := row.Scan(&o.ID, &o.Name, &o.Enabled, &apps, &o.Limits.MaxMailboxes, &o.Limits.MaxSubscriptions,
		&o.Limits.MaxStreams, &o.MetadataURL, &created, &removed, &o.Mailboxes, &o.Subscriptions)
	if err != nil {
		return o, err
	}
	o.CreatedAt = fromMillis(created)
	if removed.Valid {
		o.RemovedAt = fromMillis(removed.Int64)
	}
	if err := json.Unmarshal([]byte(apps), &o.Limits.Apps); err != nil {
		return o, fmt.Errorf("read apps of organization %d: %w", o.ID, err)
	}
	return o, nil
}

func appsJSON(apps []string) (string, error) {
	if len(apps) == 0 {
		return "[]", nil
	}
	b, err := json.Marshal(apps)
	return string(b), err
}

// organizationList names the list for page tokens.
var organizationList = []string{"organizations"}

// organizationPage returns a page's size and the name that it follows.
func organizationPage(page Page) (size int, after string, err error) {
	if size, err = page.size(); err != nil {
		return 0, "", err
	}
	position, err := decodePageToken(page.Token, organizationList, 1)
	if err != nil || position == nil {
		return size, "", err
	}
	return size, position[0], nil
}

// cutOrganizations takes off what was read beyond a page, and returns the token
// of the next.
func cutOrganizations(os []Organization, size int) ([]Organization, string) {
	if len(os) <= size {
		return os, ""
	}
	return os[:size], encodePageToken(organizationList, os[size-1].Name)
}

func (n NewOrganization) normalize() (NewOrganization, error) {
	name, err := NormalizeOrganization(n.Name)
	if err != nil {
		return n, err
	}
	if n.Limits, err = n.Limits.normalize(); err != nil {
		return n, err
	}
	n.Name = name
	return n, validateMetadataURL(n.MetadataURL)
}

func (u OrganizationUpdate) normalize() (OrganizationUpdate, error) {
	if u.Limits != nil {
		limits, err := u.Limits.normalize()
		if err != nil {
			return u, err
		}
		u.Limits = &limits
	}
	if u.MetadataURL != nil {
		return u, validateMetadataURL(*u.MetadataURL)
	}
	return u, nil
}

func (u OrganizationUpdate) apply(o *Organization) {
	if u.Enabled != nil {
		o.Enabled = *u.Enabled
	}
	if u.Limits != nil {
		o.Limits = *u.Limits
	}
	if u.MetadataURL != nil {
		o.MetadataURL = *u.MetadataURL
	}
}
