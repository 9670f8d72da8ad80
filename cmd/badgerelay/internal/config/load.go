package config

import (
	_ "embed"

	"badgerelay/cmd/internal/configfile"
)

// Example is a file with every setting explained. Load accepts it as it is,
// and with its commented-out settings put in force once the files exist.
//
//go:embed example.yaml
var Example string

// Load reads and validates the file. Where path is empty, DefaultPath is read
// if it exists, and otherwise the defaults hold. The returned configuration is
// the valid one, with warnings beside it; err joins every *Problem.
func Load(path string) (c *Config, warnings []*Problem, err error) {
	return configfile.Load(path, DefaultPath, (*Config).check)
}

// Read reads the file, or DefaultPath where path is empty and it exists,
// without looking at anything that it names: enough for a client of the relay,
// who may not open the relay's secrets.
func Read(path string) (*Config, error) {
	data, path, err := configfile.Read(path, DefaultPath)
	if err != nil {
		return nil, err
	}
	return configfile.Parse[Config](path, data)
}

// Other implements configfile.Mistakable.
func (*Config) Other() (program string, keys []string) {
	return "badgeagent", []string{"agent_id", "relay", "mailboxes", "imap", "ews", "dovecot", "local", "metadata", "resync", "ops", "log", "drain_budget"}
}
