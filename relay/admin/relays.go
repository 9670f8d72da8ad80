package admin

import (
	"cmp"
	"context"
	"slices"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "badgerelay/proto/badgerelay/v1"
	"badgerelay/relay/internal/service"
	"badgerelay/relay/registry"
)

// PresenceInterval is how often a relay says how it is to those that share its
// registry.
const PresenceInterval = service.PresenceInterval

// Presence returns what this relay says of itself, for registry.Presence. The
// contract's rules keep it readable for relays of other versions.
func (s *Server) Presence(ctx context.Context) ([]byte, error) {
	return proto.Marshal(s.status(ctx))
}

// ListRelays implements badgerelayv1.AdminServiceServer. Where the registry does not
// answer, this relay is all.
func (s *handler) ListRelays(ctx context.Context, _ *pb.ListRelaysRequest) (*pb.ListRelaysResponse, error) {
	config := &s.server.config
	own := &pb.Relay{Name: config.Place, Status: s.server.status(ctx)}
	own.State = relayState(own.Status)
	answer := &pb.ListRelaysResponse{Relays: []*pb.Relay{own}}
	if config.Others == nil {
		return answer, ctx.Err()
	}
	asked, cancel := context.WithTimeout(ctx, service.RegistryTimeout)
	defer cancel()
	others, err := config.Others(asked)
	if err != nil {
		if !service.Unanswered(asked, err) {
			return nil, err
		}
		answer.RegistryError = service.RegistryError(asked, err)
	}
	for i := range others {
		if others[i].Name != own.GetName() {
			answer.Relays = append(answer.Relays, relayMessage(&others[i]))
		}
	}
	slices.SortFunc(answer.Relays, func(a, b *pb.Relay) int { return cmp.Compare(a.GetName(), b.GetName()) })
	return answer, ctx.Err()
}

func relayMessage(p *registry.Presence) *pb.Relay {
	m := &pb.Relay{Name: p.Name, Heard: durationpb.New(p.Silence), Status: service.PresenceStatus(p)}
	switch {
	case p.Stopped:
		m.State = pb.RelayState_RELAY_STATE_STOPPED
	case p.Silence > service.SilentAfter:
		m.State = pb.RelayState_RELAY_STATE_SILENT
	default:
		m.State = relayState(m.Status)
	}
	return m
}

// relayState is how a relay is that is heard.
func relayState(s *pb.GetStatusResponse) pb.RelayState {
	if s.GetReady() {
		return pb.RelayState_RELAY_STATE_READY
	}
	return pb.RelayState_RELAY_STATE_NOT_READY
}
