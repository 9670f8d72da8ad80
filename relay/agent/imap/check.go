package imap

import (
	"context"

	"badgerelay/relay/agent/source"
)

// Checked is what Check found.
type Checked struct {
	Count source.Count
	// Watch is how the mailbox would be watched: "notify", "idle", "poll" or "off".
	Watch string
	// Lacking says why that is not as configured; empty: it is.
	Lacking string
}

// Check logs in for a mailbox, counts it, and has it watched for a moment where
// the server pushes changes, as a Source does that runs. The errors are Count's.
func (s *Source) Check(ctx context.Context, mailbox string) (Checked, error) {
	n, err := s.enter(ctx, mailbox)
	if err != nil {
		return Checked{}, err
	}
	defer n.close()
	configured := s.config.watch()
	if configured == "off" {
		c, err := n.count()
		return Checked{Count: c, Watch: configured}, ofMailbox(err)
	}
	m, err := n.watchBy(configured)
	if err != nil {
		return Checked{}, ofMailbox(err)
	}
	checked := Checked{Watch: m.String(), Lacking: lacks(configured, m, s.config.interval())}
	switch m {
	case modeNotify:
		checked.Count, err = n.countPushed()
	case modeIdle:
		if checked.Count, err = n.countSelected(); err == nil {
			err = n.idle(func(_, _ <-chan struct{}) {})
		}
	default:
		checked.Count, err = n.count()
	}
	return checked, ofMailbox(err)
}
