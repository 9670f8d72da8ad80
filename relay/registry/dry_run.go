package registry

import (
	"context"
	"errors"
	"time"

	"badgerelay/relay"
)

// dryRun is a database whose transactions end before they would be kept. It serves one
// call.
type dryRun struct {
	database
	// ahead is what the transactions before would have changed of an organization's
	// subscriptions, of which the database knows nothing. nil: there was none.
	ahead *subscribeTx
}

// errDryRun rolls a transaction back.
var errDryRun = errors.New("dry run")

// write implements database.
func (d *dryRun) write(ctx context.Context, fn func(*tx) error) error {
	err := d.database.write(ctx, func(t *tx) error {
		err := fn(t)
		if err == nil {
			err = t.flush()
		}
		if err == nil {
			err = errDryRun
		}
		return err
	})
	if errors.Is(err, errDryRun) {
		return nil
	}
	return err
}

// DryRun implements Registry. It has no listeners, and metrics that nobody reads.
func (s *store) DryRun() Changes {
	dry := &dryRun{database: s.db}
	return &store{db: dry, dry: dry, metrics: s.dryMetrics, log: s.log, lifetime: s.lifetime, batch: s.batch, clock: s.clock, groups: newGroups()}
}

// newSubscribeTx makes a subscribeTx of an organization. In a dry run it goes on with
// the one of the transaction before.
func (s *store) newSubscribeTx(now time.Time, org relay.OrganizationID, requests int) *subscribeTx {
	if s.dry != nil && s.dry.ahead != nil && s.dry.ahead.org.ID == org {
		s.dry.ahead.next(now)
		return s.dry.ahead
	}
	p := newSubscribeTx(now, s.lifetime, requests)
	if s.dry != nil {
		s.dry.ahead = p
	}
	return p
}

// declareAlone does what a request asks for in a transaction of its own: what others
// wait for is kept.
func (s *store) declareAlone(org relay.OrganizationID, q request) (declared, error) {
	w := &waiting{request: q, done: make(chan struct{})}
	s.declareEach(org, []*waiting{w})
	return w.declared, w.err
}
