package admin

import (
	"context"
	"fmt"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"badgerelay/apns"
	pb "badgerelay/proto/badgerelay/v1"
	"badgerelay/relay/registry"
)

// stallingConn reads nothing any more once stalled is closed.
type stallingConn struct {
	net.Conn
	stalled, closed chan struct{}
	once            *sync.Once
}

func (c stallingConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	select {
	case <-c.stalled:
		<-c.closed // what has come is kept from the client
		return 0, net.ErrClosed
	default:
	}
	return n, err
}

func (c stallingConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// TestOperatorWhoDoesNotRead asks for much and takes no answer: another one is served
// meanwhile, and the end comes in its time.
func TestOperatorWhoDoesNotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		o := w.enrol()
		rs := make([]registry.Registration, 1000)
		for i := range rs {
			token, err := apns.ParseDeviceToken(fmt.Sprintf("%064x", i))
			if err != nil {
				t.Fatal(err)
			}
			rs[i] = registry.Registration{Mailbox: fmt.Sprint("user", i), App: testApp, Device: token}
		}
		if _, err := w.registry.ImportSubscriptions(t.Context(), o.ID, rs); err != nil {
			t.Fatal(err)
		}
		a, err := New(Config{Relay: w.relay, Registry: w.registry, Agents: w.agents})
		if err != nil {
			t.Fatal(err)
		}
		l := bufconn.Listen(1 << 16)
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- a.Run(ctx, l) }() // ends with ctx

		stalled := make(chan struct{})
		slow, quick := operator(t, l, stalled), operator(t, l, nil)
		list := func(ctx context.Context, c pb.AdminServiceClient) error {
			r, err := c.ListSubscriptions(ctx, &pb.AdminServiceListSubscriptionsRequest{Organization: "fabrikam.com", List: &pb.ListSubscriptionsRequest{PageSize: 1000}})
			if err == nil && len(r.GetList().GetSubscriptions()) != len(rs) {
				err = fmt.Errorf("%d subscriptions, want %d", len(r.GetList().GetSubscriptions()), len(rs))
			}
			return err
		}
		if err := list(t.Context(), slow); err != nil {
			t.Fatal(err)
		}
		close(stalled)
		asking, giveUp := context.WithCancel(t.Context())
		var asked sync.WaitGroup
		for range 100 {
			asked.Go(func() {
				if list(asking, slow) == nil {
					t.Error("who does not read has got an answer")
				}
			})
		}
		time.Sleep(time.Minute)
		if err := list(t.Context(), quick); err != nil {
			t.Errorf("another operator: %v", err)
		}
		began := time.Now()
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
		if took := time.Since(began); took > stopTime {
			t.Errorf("the end took %v, want %v at most", took, stopTime)
		}
		giveUp()
		asked.Wait()
	})
}

// operator is a client of an admin listener; stalled: it stops reading with that.
func operator(t *testing.T, l *bufconn.Listener, stalled chan struct{}) pb.AdminServiceClient {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///admin", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			nc, err := l.DialContext(ctx)
			if stalled != nil {
				nc = stallingConn{nc, stalled, make(chan struct{}), new(sync.Once)}
			}
			return nc, err
		}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return pb.NewAdminServiceClient(conn)
}
