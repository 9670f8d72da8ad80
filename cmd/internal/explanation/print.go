// Package explanation prints why a mailbox's badge is what it is, for the operator's and the
// administrator's command alike.
package explanation

import (
	"encoding/json"
	"fmt"

	"google.golang.org/protobuf/encoding/protojson"

	"badgerelay/cmd/internal/command"
	"badgerelay/relay/agent/daemon"
	"badgerelay/relay/agent/diagnosis"
)

// Print prints the verdict on the facts, and the facts.
func Print(t *command.Terminal, f *diagnosis.Facts) error {
	v := diagnosis.Diagnose(f)
	if !t.JSON() {
		printPage(t, f.Page(v))
		return nil
	}
	answer := struct {
		Verdict    diagnosis.Verdict     `json:"verdict"`
		Report     json.RawMessage       `json:"report"`
		RelayError string                `json:"relayError,omitempty"`
		Agent      *daemon.MailboxReport `json:"agent,omitempty"`
		AgentError string                `json:"agentError,omitempty"`
	}{Verdict: v, Report: json.RawMessage("null"), RelayError: f.RelayError, Agent: f.Agent, AgentError: f.AgentError}
	if f.Report != nil {
		data, err := protojson.MarshalOptions{EmitUnpopulated: true}.Marshal(f.Report)
		if err != nil {
			return fmt.Errorf("encode report: %w", err)
		}
		answer.Report = data
	}
	return t.Value(answer)
}

func printPage(t *command.Terminal, page []diagnosis.Paragraph) {
	for i, p := range page {
		if i > 0 {
			t.Say("")
		}
		t.List(p.Fields...)
		if p.Heading != "" {
			t.Table(p.Heading, p.Rows)
		}
		for _, line := range p.Lines {
			t.Say("%s", line)
		}
	}
}
