package daemon

import (
	"cmp"

	"badgerelay/cmd/badgerelay/internal/config"
	"badgerelay/cmd/internal/process"
	"badgerelay/relay/ingest"
)

const (
	// defaultConnections is what limits.connections has when it is left out.
	defaultConnections = 20_000
	// defaultToAPNs is the same of an app's max_connections.
	defaultToAPNs = 8
	// otherFiles is how many files are kept for all that are no agent's and not
	// Apple's: the registry, its readers, operators, and those of two listeners. Ours.
	otherFiles = 200 + process.OpsConnections + process.MetadataConnections
)

// limits returns the limits that a reload applies. Agents may have no more
// connections than leaves files for everything else: without any, the relay
// could neither reach APNs nor be operated.
func (d *daemon) limits(c *config.Config) ingest.Config {
	return ingest.Config{
		MaxConnections: d.connections(c, process.OpenFiles()), MaxAddressConnections: c.Limits.ConnectionsPerAddress,
		MaxStreams: c.Limits.Streams, MaxOrganizationStreams: c.Limits.StreamsPerOrganization,
		CallsPerSecond: c.Limits.CallsPerSecond, PublishEventsPerSecond: c.Limits.PublishEventsPerSecond,
	}
}

// connections returns how many connections agents may have where so many files
// may be open; 0: that is not known.
func (d *daemon) connections(c *config.Config, files uint64) int {
	wanted := cmp.Or(c.Limits.Connections, defaultConnections)
	kept := otherFiles
	for _, app := range c.Apps {
		kept += 2 * cmp.Or(app.MaxConnections, defaultToAPNs) // as many again may be on their way
	}
	if files == 0 || uint64(wanted+kept) <= files {
		return wanted
	}
	allowed := max(16, int(files)-kept)
	d.Log.Warn("fewer files may be open than limits.connections needs; fewer agents are let in", "connections", allowed,
		"limits_connections", wanted, "open_files", files, "needed", wanted+kept)
	return allowed
}
