package enrolment

import (
	"crypto/rand"
	"strings"
)

// AgentID returns the id of the directory's agent; the first call makes it, for a host
// of this name.
func (d Directory) AgentID(host string) (string, error) {
	var kept struct {
		AgentID string `json:"agentId"`
	}
	if _, err := d.load(agentFile, &kept); err != nil || kept.AgentID != "" {
		return kept.AgentID, err
	}
	kept.AgentID = NewAgentID(host)
	return kept.AgentID, d.keep(agentFile, kept)
}

// NewAgentID makes an id that people can tell by the machine, and that no other
// agent has.
func NewAgentID(host string) string {
	const most = 64 // of the host's name; the id has at most 128 bytes
	host = strings.Map(func(r rune) rune {
		if r <= ' ' || r > '~' {
			return -1
		}
		return r
	}, host)
	return host[:min(len(host), most)] + "-" + rand.Text()[:12]
}
