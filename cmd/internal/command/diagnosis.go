package command

import (
	"encoding/json"
	"fmt"

	"google.golang.org/protobuf/encoding/protojson"

	"badgerelay/relay/agent/daemon"
	"badgerelay/relay/agent/diagnosis"
)

// Diagnosis prints why a mailbox's badge is what it is: the verdict on the facts, and
// the facts.
func (t *Terminal) Diagnosis(f *diagnosis.Facts) error {
	v := diagnosis.Diagnose(f)
	if !t.JSON() {
		t.page(f.Page(v))
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

func (t *Terminal) page(page []diagnosis.Paragraph) {
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
