package registry

import (
	"fmt"
	"slices"
	"strings"
)

// sharedSchema is what programs of this version read and write in both databases,
// table by table. A newer program may have added to it.
var sharedSchema = map[string]string{
	"organizations":         "id name enabled apps max_mailboxes max_subscriptions max_streams metadata_url created_at removed_at purging sums_after mailboxes subscriptions",
	"credentials":           "id organization_id certificate x5t key_sha256 start_at end_at created_at last_used_at",
	"removed_credentials":   "organization_id certificate_sha256 ends_at",
	"subscriptions":         "organization_id mailbox app token created_at registered_at quarantine",
	"removed_subscriptions": "organization_id mailbox app token device created_at registered_at removed_at reason superseded",
	"removal_budgets":       "app allowed used last_at",
	"app_generations":       "app generation accepted",
	"shared_devices":        "app token sequence accepted answered refusal summed pusher push_again_at due_at",
	"shared_parts":          "app token organization_id mailbox disabled joined_at state count newest_count sequence received_at stored_at",
	"pushers":               "name seen_at",
}

// What each of them has beside that.
var (
	sqliteSchema = map[string]string{
		"devices":     "device organization_id mailbox",
		"devices_log": "device organization_id mailbox",
	}
	postgresSchema = map[string]string{
		"subscriptions":        "device",
		"changes":              "id xid made_at data",
		"relays":               "name started_at seen_at stopped status",
		"inquiry_answers":      "inquiry relay answered_at answer",
		"schema_compatibility": "oldest",
	}
)

// checkColumns returns an *InvalidError of a field if one of the columns that the
// program uses is not among those found, as after a restore that was interrupted.
// Columns are named table.column.
func checkColumns(field string, found map[string]bool, own map[string]string) error {
	var missing []string
	for _, schema := range []map[string]string{sharedSchema, own} {
		for table, columns := range schema {
			for column := range strings.FieldsSeq(columns) {
				if name := table + "." + column; !found[name] {
					missing = append(missing, name)
				}
			}
		}
	}
	if len(missing) == 0 {
		return nil
	}
	slices.Sort(missing)
	const most = 3
	more := ""
	if n := len(missing) - most; n > 0 {
		missing, more = missing[:most], fmt.Sprintf(" and %d more", n)
	}
	return &InvalidError{field, "leads to a part of a registry: it lacks " + strings.Join(missing, ", ") + more + "; restore a whole backup"}
}
