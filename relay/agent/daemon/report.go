package daemon

import (
	"context"
	"time"

	"badgerelay/relay/agent/source"
)

// MailboxReport is what the agent knows of a mailbox, for people who ask why its
// badge is what it is.
type MailboxReport struct {
	Mailbox string `json:"mailbox"`
	AgentID string `json:"agentId"`

	// How the agent is with its relay.
	Connected     bool      `json:"connected"`
	Standby       bool      `json:"standby"` // another process with its id is active
	Relay         string    `json:"relay"`   // address
	RelayInstance string    `json:"relayInstance"`
	Since         time.Time `json:"since,omitzero"` // of Connected, as it is
	Failure       string    `json:"failure"`        // why it is not connected; empty: it is, or was never

	// What it makes of the mailbox.
	Subscribed bool     `json:"subscribed"` // the relay has told that it has a device
	Informed   bool     `json:"informed"`   // what the relay has told of devices is up to date
	Counts     bool     `json:"counts"`     // some source can be asked for counts
	Troubles   []string `json:"troubles"`   // of the mail servers as a whole
	Stale      bool     `json:"stale"`      // another agent tells newer counts
	// CaseSensitive is Config's: without it, devices on any spelling of the name are told
	// the count.
	CaseSensitive bool      `json:"caseSensitive"`
	Sent          *uint32   `json:"sent"` // the count that was handed to the relay last; nil: none
	SentAt        time.Time `json:"sentAt,omitzero"`
	Unsettled     *uint32   `json:"unsettled"` // what the relay has not settled; nil: nothing

	// What the mail server counts now. CountError: why it can't be had; empty with
	// Counted.
	Counted    *uint32 `json:"counted"`
	CountError string  `json:"countError"`
}

// reportTime bounds the mail server's answer. Ours: people wait for it.
const reportTime = 8 * time.Second

// Report says what the agent knows of a mailbox, and has its mail server count
// afresh. It waits for that for 8 seconds at most. A source that watches the mailbox may
// hand on that count (source.Counter), so what the relay has settled is heard after it.
func (d *Daemon) Report(ctx context.Context, mailbox string) MailboxReport {
	r := MailboxReport{Mailbox: mailbox, AgentID: d.config.Relay.AgentID, Counts: !d.mailboxes.blind, CaseSensitive: d.config.CaseSensitive}
	s := d.agent.Status()
	r.Connected, r.Standby, r.Relay, r.RelayInstance, r.Since = s.Connected, s.Standby, s.Address, s.Instance, s.Since
	if s.LastFailure != nil && !s.Connected {
		r.Failure = s.LastFailure.Text()
	}
	for _, one := range d.config.Sources {
		if trouble := one.Status().Trouble; trouble != "" {
			r.Troubles = append(r.Troubles, one.Name()+": mail server "+trouble)
		}
	}
	if r.Counts {
		d.reportCount(ctx, mailbox, &r)
	}
	d.mailboxes.report(&r)
	if s.Connected && !s.Standby {
		d.hearSettlements(ctx)
	}
	if unread, pending := d.agent.Unsettled(mailbox); pending {
		r.Unsettled = &unread
	}
	return r
}

// hearTime is how long the relay has to tell what it has held back. Ours.
const hearTime = time.Second

// hearSettlements has the relay tell of what has settled, without the settlement delay.
func (d *Daemon) hearSettlements(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, hearTime)
	defer cancel()
	_ = d.agent.WaitSettled(ctx) // what has not settled is told
}

// reportCount has the mail server count.
func (d *Daemon) reportCount(ctx context.Context, mailbox string, r *MailboxReport) {
	ctx, cancel := context.WithTimeout(ctx, reportTime)
	defer cancel()
	count, _, err := firstCount(d.mailboxes.counters, d.mailboxes.countedBy(mailbox), func(c *counter) (source.Count, error) { return c.Peek(ctx, mailbox) })
	switch {
	case err == nil:
		r.Counted = &count.Unread
	case ctx.Err() != nil:
		r.CountError = "no answer within " + reportTime.String()
	default:
		r.CountError = err.Error()
	}
}

// report adds what is known of a mailbox.
func (m *mailboxes) report(r *MailboxReport) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r.Informed = m.current
	box := m.known[r.Mailbox]
	if box == nil {
		return
	}
	r.Subscribed, r.Stale = true, box.stale > 0
	if !box.newest.at.IsZero() {
		sent := box.newest.unread
		r.Sent, r.SentAt = &sent, box.newest.at
	}
}
