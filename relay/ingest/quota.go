package ingest

import (
	"sync"
	"time"

	"google.golang.org/grpc/codes"

	pb "badgerelay/proto/badgerelay/v1"
	"badgerelay/relay"
	"badgerelay/relay/internal/service"
)

// quotas meters what organizations ask for by unary calls. It holds two
// buckets an organization, which are as many as are enrolled.
type quotas struct {
	mu            sync.Mutex // guards all and the buckets
	calls, events rate
	orgs          map[relay.OrganizationID]*orgQuota
}

// rate is a bucket's size and how fast it fills. perSecond < 0: no bound.
type rate struct{ perSecond, burst float64 }

type orgQuota struct{ calls, events bucket }

// bucket is what is left, and when that was so. The zero value is full.
type bucket struct {
	left float64
	at   time.Time
}

func newQuotas(c *Config) *quotas {
	q := &quotas{orgs: map[relay.OrganizationID]*orgQuota{}}
	q.set(c)
	return q
}

// set changes the rates. What is left in a bucket stays.
func (q *quotas) set(c *Config) {
	calls, events := c.callsPerSecond(), c.eventsPerSecond()
	q.mu.Lock()
	defer q.mu.Unlock()
	q.calls = rate{calls, max(1, 2*calls)}
	q.events = rate{events, max(2*events, float64(c.batchEvents()))}
}

// take takes one call and a number of events out of the organization's
// quota, or refuses and takes nothing.
func (q *quotas) take(org relay.OrganizationID, events int) error {
	now := time.Now()
	q.mu.Lock()
	defer q.mu.Unlock()
	o := q.orgs[org]
	if o == nil {
		o = &orgQuota{calls: bucket{q.calls.burst, now}, events: bucket{q.events.burst, now}}
		q.orgs[org] = o
	}
	wait := max(o.calls.wait(q.calls, 1, now), o.events.wait(q.events, float64(events), now))
	if wait > 0 {
		r := service.Refuse(codes.ResourceExhausted, pb.ErrorReason_ERROR_REASON_QUOTA_EXCEEDED, "calls come faster than the quota allows")
		r.RetryAfter = wait
		return r
	}
	o.calls.left--
	o.events.left -= float64(events)
	return nil
}

// take fills the bucket up to now and takes n out of it, if it holds that.
func (b *bucket) take(r rate, n float64, now time.Time) bool {
	if b.wait(r, n, now) > 0 {
		return false
	}
	b.left -= n
	return true
}

// forget drops an organization that is gone.
func (q *quotas) forget(org relay.OrganizationID) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.orgs, org)
}

// wait fills the bucket up to now and returns how long it takes until it
// holds n.
func (b *bucket) wait(r rate, n float64, now time.Time) time.Duration {
	if r.perSecond < 0 {
		b.left = r.burst
		return 0
	}
	b.left = min(r.burst, b.left+now.Sub(b.at).Seconds()*r.perSecond)
	b.at = now
	if b.left >= n {
		return 0
	}
	return max(time.Millisecond, time.Duration((n-b.left)/r.perSecond*float64(time.Second)))
}
