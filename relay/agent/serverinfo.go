package agent

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"time"

	badgerelayv1 "badgerelay/proto/badgerelay/v1"

	"google.golang.org/grpc"
)

// ServerInfo is what a relay says of itself when a stream is opened.
type ServerInfo struct {
	Relay            string // its version
	Instance         string // its process's name, new at each start
	MaxBatchEvents   int
	TokenExpiresAt   time.Time     // zero: not said
	CoalescingWindow time.Duration // 0: counts are not gathered
}

// ServerInfo opens a stream, hears what the relay says, and closes it without
// having sent an event. It shows whether the token, the organization and the
// product are accepted. The relay is told that it is no agent's stream, so that the
// running one goes on.
func (c *Client) ServerInfo(ctx context.Context) (ServerInfo, error) {
	return call(ctx, c, func(ctx context.Context, conn *grpc.ClientConn) (ServerInfo, error) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		rpc, err := badgerelayv1.NewRelayServiceClient(conn).Stream(ctx)
		if err != nil {
			return ServerInfo{}, err
		}
		welcome, err := handshake(rpc, &badgerelayv1.Hello{Agent: c.cfg.agent(), AgentId: "probe-" + rand.Text(), Instance: "1", Number: 1, Probe: true})
		if err != nil {
			return ServerInfo{}, err
		}
		return ServerInfo{
			Relay: welcome.GetRelayVersion(), Instance: welcome.GetInstance(), MaxBatchEvents: int(welcome.GetMaxBatchEvents()),
			TokenExpiresAt: timeFrom(welcome.GetTokenExpiresAt()), CoalescingWindow: welcome.GetCoalescingWindow().AsDuration(),
		}, nil
	})
}

// handshake says hello and returns the welcome.
func handshake(rpc grpc.BidiStreamingClient[badgerelayv1.StreamRequest, badgerelayv1.StreamResponse], hello *badgerelayv1.Hello) (*badgerelayv1.Welcome, error) {
	err := rpc.Send(&badgerelayv1.StreamRequest{Message: &badgerelayv1.StreamRequest_Hello{Hello: hello}})
	if err != nil && !errors.Is(err, io.EOF) { // io.EOF: Recv knows why
		return nil, err
	}
	message, err := rpc.Recv()
	if errors.Is(err, io.EOF) {
		return nil, errEnded
	}
	if err != nil {
		return nil, err
	}
	if welcome := message.GetWelcome(); welcome != nil {
		return welcome, nil
	}
	return nil, &protocolError{fmt.Errorf("first message is %T, not a welcome", message.GetMessage())}
}
