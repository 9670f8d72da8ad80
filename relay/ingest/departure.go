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

// maxDepartures bounds the organizations whose last stream is remembered. Ours:
// beyond it any of them is forgotten.
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
	if _, known := t.left[st.key.organization]; !known && len(t.left) >= maxDepartures {
		for org := range t.left {
			delete(t.left, org)
			break
		}
	}
	t.left[st.key.organization] = departure{st.key.id, time.Now(), st.endedFor()}
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
}

// of returns the organization's open streams by agent and age, the ids of its agents
// as far as they are known here, and the stream that ended last.
func (t *agents) of(org relay.OrganizationID) (streams []*pb.AgentStreamReport, ids []string, left *pb.AgentDeparture) {
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
			streams = append(streams, &pb.AgentStreamReport{
				AgentId: key.id, AgentName: st.name, Instance: st.id.instance, Standby: st.role != roleActive,
				OpenedAt: service.Time(st.openedAt), HeardAt: service.Time(time.UnixMilli(st.heard.Load())),
			})
		}
	}
	slices.SortFunc(streams, func(a, b *pb.AgentStreamReport) int {
		return cmp.Or(cmp.Compare(a.GetAgentId(), b.GetAgentId()), a.GetOpenedAt().AsTime().Compare(b.GetOpenedAt().AsTime()))
	})
	if d, ok := t.left[org]; ok {
		left = &pb.AgentDeparture{AgentId: d.agentID, LeftAt: service.Time(d.at)}
		if d.reason != pb.ErrorReason_ERROR_REASON_UNSPECIFIED {
			left.Reason = service.ReasonName(d.reason)
		}
		if !slices.Contains(ids, d.agentID) {
			ids = append(ids, d.agentID)
		}
	}
	return streams, ids, left
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
