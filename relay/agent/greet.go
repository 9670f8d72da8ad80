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

// Greeting is what a relay says of itself when a stream is opened.
type Greeting struct {
	Relay            string // its version
	Instance         string // its process's name, new at each start
	MaxBatchEvents   int
	TokenExpiresAt   time.Time     // zero: not said
	CoalescingWindow time.Duration // 0: counts are not gathered
}

// Greet opens a stream, hears what the relay says, and closes it without
// having sent an event. It shows whether the token, the organization and the
// product are accepted. To the relay it is an agent of its own, so that the
// running one goes on.
func (c *Client) Greet(ctx context.Context) (Greeting, error) {
	return call(ctx, c, func(ctx context.Context, conn *grpc.ClientConn) (Greeting, error) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		rpc, err := badgerelayv1.NewRelayServiceClient(conn).Stream(ctx)
		if err != nil {
			return Greeting{}, err
		}
		welcome, err := greet(rpc, &badgerelayv1.Hello{Agent: c.cfg.agent(), AgentId: "probe-" + rand.Text(), Instance: "1", Number: 1})
		if err != nil {
			return Greeting{}, err
		}
		return Greeting{
			Relay: welcome.GetRelayVersion(), Instance: welcome.GetInstance(), MaxBatchEvents: int(welcome.GetMaxBatchEvents()),
			TokenExpiresAt: timeFrom(welcome.GetTokenExpiresAt()), CoalescingWindow: welcome.GetCoalescingWindow().AsDuration(),
		}, nil
	})
}

// greet says hello and returns the welcome.
func greet(rpc grpc.BidiStreamingClient[badgerelayv1.StreamRequest, badgerelayv1.StreamResponse], hello *badgerelayv1.Hello) (*badgerelayv1.Welcome, error) {
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
