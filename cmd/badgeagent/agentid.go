package main

import (
	"crypto/rand"
	"fmt"
	"strings"
)

// agentIdentity is how the agent's id is kept.
type agentIdentity struct {
	AgentID string `json:"agentId"`
}

// agentID returns the configured id, or the one that the directory keeps; at the
// first start it makes one.
func (a *app) agentID(configured string) (string, error) {
	if configured != "" {
		return configured, nil
	}
	id, err := a.keptAgentID()
	if err != nil {
		return "", fmt.Errorf("keep the agent's id in %s (agent_id in the configuration does without): %w", a.dir, err)
	}
	return id, nil
}

func (a *app) keptAgentID() (string, error) {
	var kept agentIdentity
	if _, err := a.load(agentFile, &kept); err != nil || kept.AgentID != "" {
		return kept.AgentID, err
	}
	kept.AgentID = newAgentID()
	return kept.AgentID, a.store(agentFile, kept)
}

// newAgentID makes an id that people can tell by the machine, and that no other
// agent has.
func newAgentID() string {
	const most = 64 // of the host's name; the id has at most 128 bytes
	host := strings.Map(func(r rune) rune {
		if r <= ' ' || r > '~' {
			return -1
		}
		return r
	}, hostName())
	return host[:min(len(host), most)] + "-" + rand.Text()[:12]
}
