package ingest

import (
	"cmp"
	"errors"
	"slices"
	"time"

	pb "badgerelay/proto/badgerelay/v1"
	"badgerelay/relay"
	"badgerelay/relay/internal/service"
)

// maxDepartures bounds the organizations whose last stream is remembered, and apart
// those whose last one was refused. Ours: beyond it any of them is forgotten.
const maxDepartures = 100_000

// departure is the end of a stream.
type departure struct {
	agentID string
	at      time.Time
	reason  pb.ErrorReason // UNSPECIFIED: the agent or the network ended it
}

// departedLocked notes that a stream has ended for which there is no newer one.
func (t *agents) departedLocked(st *agentStream) {
	if st.replaced {
		return
	}
	remember(t.left, st.key.organization, departure{st.key.id, time.Now(), st.endedFor()})
}

func remember(all map[relay.OrganizationID]departure, org relay.OrganizationID, d departure) {
	if _, known := all[org]; !known && len(all) >= maxDepartures {
		for other := range all {
			delete(all, other)
			break
		}
	}
	all[org] = d
}

// tried notes that an agent, whose token is good, was refused a stream by a limit or for its
// product; err is nil if it was let in. Other refusals are of one try.
func (t *agents) tried(org relay.OrganizationID, agentID string, err error) {
	r, ours := errors.AsType[*service.Refusal](err)
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case err == nil:
		delete(t.refused, org)
	case ours && (r.Reason == pb.ErrorReason_ERROR_REASON_LIMIT_REACHED || r.Reason == pb.ErrorReason_ERROR_REASON_PRODUCT_TOO_OLD):
		remember(t.refused, org, departure{agentID, time.Now(), r.Reason})
	}
}

// endedFor returns the reason that the agent was given for the stream's end.
func (st *agentStream) endedFor() pb.ErrorReason {
	st.mu.Lock()
	defer st.mu.Unlock()
	if r, ours := errors.AsType[*service.Refusal](st.cause); ours {
		return r.Reason
	}
	return pb.ErrorReason_ERROR_REASON_UNSPECIFIED
}

// forgetDeparture drops an organization that is gone.
func (t *agents) forgetDeparture(org relay.OrganizationID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.left, org)
	delete(t.refused, org)
}

// of adds the organization's streams to a report: the open ones by agent and age, the one
// that ended last, and the one that was refused last. It returns the ids of its agents, as
// far as they are known here.
func (t *agents) of(org relay.OrganizationID, r *pb.RelayReport) (ids []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for key, a := range t.known {
		if key.organization != org {
			continue
		}
		ids = append(ids, key.id)
		for _, st := range a.open {
			if st.replaced {
				continue
			}
			r.Streams = append(r.Streams, &pb.AgentStreamReport{
				AgentId: key.id, AgentName: st.name, Instance: st.id.instance, Standby: st.role != roleActive,
				OpenedAt: service.Time(st.openedAt), HeardAt: service.Time(time.UnixMilli(st.heard.Load())),
			})
		}
	}
	slices.SortFunc(r.Streams, func(a, b *pb.AgentStreamReport) int {
		return cmp.Or(cmp.Compare(a.GetAgentId(), b.GetAgentId()), a.GetOpenedAt().AsTime().Compare(b.GetOpenedAt().AsTime()))
	})
	if d, ok := t.left[org]; ok {
		r.LastDeparture = d.report()
		if !slices.Contains(ids, d.agentID) {
			ids = append(ids, d.agentID)
		}
	}
	if d, ok := t.refused[org]; ok {
		r.LastRefusal = d.report()
	}
	return ids
}

func (d departure) report() *pb.AgentDeparture {
	m := &pb.AgentDeparture{AgentId: d.agentID, LeftAt: service.Time(d.at)}
	if d.reason != pb.ErrorReason_ERROR_REASON_UNSPECIFIED {
		m.Reason = service.ReasonName(d.reason)
	}
	return m
}

// organization returns the number of an organization that has a stream here.
func (t *agents) organization(name string) (id relay.OrganizationID, known bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for key, a := range t.known {
		for _, st := range a.open {
			if st.organization == name {
				return key.organization, true
			}
		}
	}
	return 0, false
}
