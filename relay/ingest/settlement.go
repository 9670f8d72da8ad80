package ingest

import (
	"fmt"

	pb "badgerelay/proto/badgerelay/v1"
	"badgerelay/relay"
)

// maxOutcomeBytes is about how large a Settlement may get by its outcomes
// before the rest goes into the next: clients of gRPC take 4 MiB by default.
const maxOutcomeBytes = 1 << 20

// maxRefusedNamed is how many refused devices a message names, in all of its outcomes:
// a token has up to 200 digits. Ours: a mailbox may have any number of devices, and the
// registry lists the subscriptions that are left.
const maxRefusedNamed = 5000

// settlements turns a settlement into messages: one, or several where
// outcomes are many. Each is a whole settlement of its own: it speaks for the
// events up to some sequence number, the next for those after.
func settlements(s relay.Settlement) []*pb.StreamResponse {
	var out []*pb.StreamResponse
	for {
		n := fitting(s.Outcomes)
		if n == len(s.Outcomes) {
			return append(out, settlementMessage(s))
		}
		var head relay.Settlement
		head, s = splitSettlement(s, n)
		out = append(out, settlementMessage(head))
	}
}

// fitting returns how many of the outcomes fit into one message.
func fitting(outcomes []relay.EventOutcome) int {
	size := 0
	for i := range outcomes {
		o := &outcomes[i]
		size += 24 + len(o.Field) + len(o.Detail)
		for _, r := range o.Refused {
			size += 220 + len(r.App) + len(r.Reason) // a device token has up to 200 digits
		}
		if size > maxOutcomeBytes && i > 0 {
			return i
		}
	}
	return len(outcomes)
}

// splitSettlement cuts after the n-th outcome: head speaks for its event and
// all before, rest for those after.
func splitSettlement(s relay.Settlement, n int) (head, rest relay.Settlement) {
	cut := s.Outcomes[n-1].Sequence
	head, rest = s, s
	head.Outcomes, rest.Outcomes = s.Outcomes[:n], s.Outcomes[n:]
	if cut <= s.Through {
		head.Through, head.Ranges = cut, nil
		return head, rest
	}
	head.Ranges, rest.Ranges = nil, nil
	for _, r := range s.Ranges {
		if r.First <= cut {
			head.Ranges = append(head.Ranges, relay.Range{First: r.First, Last: min(r.Last, cut)})
		}
		if r.Last > cut {
			rest.Ranges = append(rest.Ranges, relay.Range{First: max(r.First, cut+1), Last: r.Last})
		}
	}
	return head, rest
}

func settlementMessage(s relay.Settlement) *pb.StreamResponse {
	m := &pb.Settlement{Through: s.Through, Outcomes: outcomeMessages(s.Outcomes)}
	if len(s.Ranges) > 0 {
		ranges := make([]pb.SequenceRange, len(s.Ranges)) // one allocation for all
		m.Ranges = make([]*pb.SequenceRange, len(s.Ranges))
		for i, r := range s.Ranges {
			ranges[i].First, ranges[i].Last = r.First, r.Last
			m.Ranges[i] = &ranges[i]
		}
	}
	return &pb.StreamResponse{Message: &pb.StreamResponse_Settlement{Settlement: m}}
}

func outcomeMessages(outcomes []relay.EventOutcome) []*pb.EventOutcome {
	if len(outcomes) == 0 {
		return nil
	}
	messages := make([]pb.EventOutcome, len(outcomes)) // one allocation for all
	out := make([]*pb.EventOutcome, len(outcomes))
	room := maxRefusedNamed
	for i := range outcomes {
		o, m := &outcomes[i], &messages[i]
		m.Sequence, m.Outcome = o.Sequence, wireOutcome(o.Outcome)
		m.Field, m.Detail = o.Field, o.Detail
		named := o.Refused[:min(room, len(o.Refused))]
		room -= len(named)
		if left := len(o.Refused) - len(named); left > 0 {
			m.Detail += fmt.Sprintf("; refused devices that are not named: %d", left)
		}
		for _, r := range named {
			app, device, reason := r.App, r.Device.Hex(), string(r.Reason)
			switch {
			case r.Removed:
				m.Removed = append(m.Removed, &pb.RemovedSubscription{App: app, DeviceToken: device, Reason: reason})
			case r.Dropped:
				m.Dropped = append(m.Dropped, &pb.DroppedPush{App: app, DeviceToken: device, Reason: reason})
			default:
				m.Quarantined = append(m.Quarantined, &pb.QuarantinedSubscription{App: app, DeviceToken: device, Reason: reason})
			}
		}
		out[i] = m
	}
	return out
}

// wireOutcome maps the relay's outcomes, all of them: its test walks them. An abandoned event's stream is gone,
// so it can show in a Publish only, when the relay stops: to its agent it has
// not settled.
func wireOutcome(o relay.Outcome) pb.Outcome {
	switch o {
	case relay.OutcomeDelivered:
		return pb.Outcome_OUTCOME_DELIVERED
	case relay.OutcomeSuperseded:
		return pb.Outcome_OUTCOME_SUPERSEDED
	case relay.OutcomeUnchanged:
		return pb.Outcome_OUTCOME_UNCHANGED
	case relay.OutcomeStale:
		return pb.Outcome_OUTCOME_STALE
	case relay.OutcomeNoSubscription:
		return pb.Outcome_OUTCOME_NO_SUBSCRIPTION
	case relay.OutcomeRejected:
		return pb.Outcome_OUTCOME_REJECTED
	case relay.OutcomeUndeliverable:
		return pb.Outcome_OUTCOME_UNDELIVERABLE
	case relay.OutcomeStandby:
		return pb.Outcome_OUTCOME_STANDBY
	case relay.OutcomeAbandoned, relay.OutcomePending:
		return pb.Outcome_OUTCOME_PENDING
	}
	return pb.Outcome_OUTCOME_UNSPECIFIED
}
