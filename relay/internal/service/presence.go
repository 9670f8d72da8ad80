package service

import (
	"context"
	"errors"
	"time"

	"google.golang.org/protobuf/proto"

	pb "badgerelay/proto/badgerelay/v1"
	"badgerelay/relay/registry"
)

// PresenceInterval is how often a relay says how it is to those that share its
// registry.
const PresenceInterval = 5 * time.Second

// SilentAfter is when it counts as silent: it has missed three turns, and the
// fourth is overdue. Contract, badgerelay.v1.RelayState.
const SilentAfter = 4 * PresenceInterval

// RegistryTimeout bounds what a status asks of the registry, so that one that
// hangs is told of before the operator gives up.
const RegistryTimeout = 3 * time.Second

// PresenceStatus returns what a relay says of itself. What can't be read is missing.
func PresenceStatus(p *registry.Presence) *pb.GetStatusResponse {
	m := &pb.GetStatusResponse{}
	_ = proto.Unmarshal(p.Status, m)
	return m
}

// RegistryError says for people why the registry did not answer.
func RegistryError(ctx context.Context, err error) string {
	if ctx.Err() != nil {
		return "the registry did not answer within " + RegistryTimeout.String()
	}
	return err.Error()
}

// Unanswered says that the registry did not answer, or not in ctx's time. Any
// other error is a defect of ours, and is not to be taken for that.
func Unanswered(ctx context.Context, err error) bool {
	return errors.Is(err, registry.ErrUnavailable) || ctx.Err() != nil
}
