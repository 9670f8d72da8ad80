package daemon

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"badgerelay/relay/agent"
	"badgerelay/relay/agent/source"
)

// sink takes what one source finds out.
type sink struct {
	d     *Daemon
	name  string
	asked bool // it is the asker's

	counts, changes, dropped, refused prometheus.Counter
}

// sink returns the sink of the named source.
func (d *Daemon) sink(name string) *sink {
	m := d.metrics
	return &sink{
		d: d, name: name, asked: name == sourceAsked, counts: m.counts.WithLabelValues(name), changes: m.changes.WithLabelValues(name),
		dropped: m.dropped.WithLabelValues(name), refused: m.refused.WithLabelValues(name),
	}
}

// Counted implements source.Sink.
func (s *sink) Counted(c source.Count) {
	s.counts.Inc()
	if s.asked {
		s.counted(c) // of this very name: it was asked for by it
		return
	}
	for _, c.Mailbox = range s.d.mailboxes.names(c.Mailbox) {
		s.counted(c)
	}
}

func (s *sink) counted(c source.Count) {
	if !s.d.mailboxes.counted(c, time.Now()) {
		s.dropped.Inc()
		return
	}
	err := s.d.agent.SetEvent(agent.Event{
		Mailbox: c.Mailbox, Unread: c.Unread, Epoch: c.Epoch, Version: c.Version, ObservedAt: c.Asked,
	})
	if err == nil {
		return
	}
	s.refused.Inc()
	if errors.Is(err, agent.ErrFull) {
		s.d.mailboxes.full(c.Mailbox, time.Now())
		s.d.log.Warn("counts not taken; their mailboxes are asked again later", "error", err)
		return
	}
	s.d.log.Warn("count not taken", "mailbox", c.Mailbox, "error", err)
}

// Missed implements source.Sink.
func (s *sink) Missed() {
	s.d.log.Info("changes may have been missed; every mailbox is counted anew")
	s.d.mailboxes.recountAll()
}

// Recovered implements source.Sink.
func (s *sink) Recovered() { s.d.mailboxes.recovered(s.name) }

// Changed implements source.Sink.
func (s *sink) Changed(mailbox string) {
	s.changes.Inc()
	for _, name := range s.d.mailboxes.names(mailbox) {
		if !s.d.mailboxes.changed(name) {
			s.dropped.Inc()
		}
	}
}
