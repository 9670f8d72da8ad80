package main

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"

	pb "badgerelay/proto/badgerelay/v1"
	"badgerelay/relay/agent/diagnosis"
	"badgerelay/relay/agent/imap/imaptest"
)

// explains waits until 'badgeagent explain' has a verdict whose sentence has these parts.
func (w *harness) explains(user string, code diagnosis.Code, parts ...string) {
	w.t.Helper()
	var got diagnosis.Verdict
	for began := time.Now(); time.Since(began) < soon; time.Sleep(50 * time.Millisecond) { // real processes, not a bubble
		out, err := w.Do(w.t.Context(), "badgeagent", "explain", Mailbox(user), "--config", w.path("agent.yaml"), "--output", "json", "--timeout", "5s")
		if code != diagnosis.RelayUnreachable { // which has an exit code of its own
			w.do(err)
		}
		var answer struct{ Verdict diagnosis.Verdict }
		w.do(json.Unmarshal([]byte(out), &answer))
		got = answer.Verdict
		missing := slices.ContainsFunc(parts, func(part string) bool { return !strings.Contains(got.Sentence, part) })
		if got.Code == code && !missing {
			w.t.Logf("%s: %s", got.Code, got.Sentence)
			return
		}
	}
	w.t.Fatalf("%s: %s, %q; want %s with %q", user, got.Code, got.Sentence, code, parts)
}

// TestExplain has the way from a mail to a badge broken on the mail server's side, and
// 'badgeagent explain' say where.
func TestExplain(t *testing.T) {
	t.Parallel()
	w := run(t, Config{Users: []string{"ann"}, Lua: true, Watch: "off", Window: 100 * time.Millisecond})
	w.do(w.Dovecot.Deliver("ann", "one"))
	w.want("mail", "ann", 1)
	w.explains("ann", diagnosis.Right, "The badge is right: 1 on its device since")
	w.explains("amn", diagnosis.NoSubscription, "did you mean "+Mailbox("ann"))
	page, err := w.Do(t.Context(), "badgeagent", "explain", Mailbox("ann"), "--config", w.path("agent.yaml"))
	w.do(err)
	t.Log("\n" + page)

	w.do(w.Dovecot.PutBehind("ann", "two"))
	w.explains("ann", diagnosis.CountDiffers, "The mail server counts 2, and what the relay has is 1")
	w.do(w.Dovecot.Deliver("ann", "three"))
	w.explains("ann", diagnosis.Right, "3 on its device")

	w.do(os.WriteFile(w.path("master-password"), []byte("wrong\n"), 0o600))
	w.do(w.Agent.Signal(syscall.SIGHUP))
	w.explains("ann", diagnosis.CountFailed, "The mail server does not tell the count")
	w.do(os.WriteFile(w.path("master-password"), []byte(imaptest.MasterPassword+"\n"), 0o600))
	w.do(w.Agent.Signal(syscall.SIGHUP))
	w.explains("ann", diagnosis.Right)

	// Another agent tells a count of the same mailbox.
	leave := w.otherAgent("mx2", Mailbox("ann"), 9)
	w.explains("ann", diagnosis.StaleCount, "Another agent, mx2, has told the relay 9, and the mail server of this one counts 3")
	w.Agent.Kill()
	w.explains("ann", diagnosis.Right, "9 on its device", "The agent on this machine could not be asked (it does not run", "what the mail server counts is not known")
	leave()

	// The network swallows what the agent sends, and says nothing.
	w.explains("ann", diagnosis.Right, "9 on its device", "it does not run", "until you start it")
	network := w.throughNetwork()
	w.do(w.StartAgent(t.Context()))
	w.explains("ann", diagnosis.Right, "3 on its device")
	network.cut.Store(true)
	w.do(w.Dovecot.Deliver("ann", "four"))
	w.explains("ann", diagnosis.NotAcknowledged, "The agent has sent 4, and the relay has not taken it")
	network.close()
	w.explains("ann", diagnosis.AgentNotConnected, "has no stream to a relay since")

	_, err = w.Do(t.Context(), "badgerelay", "organization", "disable", Organization)
	w.do(err)
	w.explains("ann", diagnosis.OrganizationDisabled)
	w.Relay.Kill()
	w.explains("ann", diagnosis.RelayUnreachable, "no relay listens at")
}

// otherAgent tells a count on a stream that stays open until leave.
func (w *harness) otherAgent(id, mailbox string, unread uint32) (leave func()) {
	w.t.Helper()
	token, err := w.Do(w.t.Context(), "badgeagent", "token")
	w.do(err)
	trust, err := credentials.NewClientTLSFromFile(w.path("relay.crt"), "")
	w.do(err)
	conn, err := grpc.NewClient(w.ports.relay, grpc.WithTransportCredentials(trust))
	w.do(err)
	ctx := metadata.AppendToOutgoingContext(w.t.Context(), "authorization", "Bearer "+strings.TrimSpace(token))
	stream, err := pb.NewRelayServiceClient(conn).Stream(ctx)
	w.do(err)
	for _, m := range []*pb.StreamRequest{
		{Message: &pb.StreamRequest_Hello{Hello: &pb.Hello{Agent: &pb.Agent{Name: id}, AgentId: id, Instance: "1", Number: 1}}},
		{Message: &pb.StreamRequest_Batch{Batch: &pb.Batch{FirstSequence: 1, Events: []*pb.Event{{Mailbox: mailbox, UnreadCount: unread}}}}},
	} {
		w.do(stream.Send(m))
	}
	return func() { w.do(conn.Close()) }
}

// network is between agent and relay until close. What comes while it is cut is lost.
type network struct {
	listener net.Listener
	cut      atomic.Bool

	mu    sync.Mutex
	conns []net.Conn
}

// throughNetwork has the agent, when it starts, reach the relay through a network.
func (w *harness) throughNetwork() *network {
	w.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	w.do(err)
	n := &network{listener: l}
	w.t.Cleanup(n.close)
	go func() { // ends with the listener
		for {
			from, err := l.Accept()
			if err != nil {
				return
			}
			to, err := net.Dial("tcp", w.ports.relay)
			if err != nil {
				_ = from.Close() // the agent tries again
				continue
			}
			n.join(from, to)
		}
	}()
	text, err := os.ReadFile(w.path("agent.yaml"))
	w.do(err)
	w.do(os.WriteFile(w.path("agent.yaml"), fmt.Appendf(text, "relay: {addresses: [%q]}\n", l.Addr()), 0o600))
	return n
}

func (n *network) join(a, b net.Conn) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.conns = append(n.conns, a, b)
	for _, way := range [][2]net.Conn{{a, b}, {b, a}} {
		go func() { // ends with its connections
			buffer := make([]byte, 32<<10)
			for {
				read, err := way[0].Read(buffer)
				if err != nil {
					return
				}
				if !n.cut.Load() {
					_, _ = way[1].Write(buffer[:read]) // the reader of the other way finds out
				}
			}
		}()
	}
}

func (n *network) close() {
	_ = n.listener.Close() // may be closed already
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, c := range n.conns {
		_ = c.Close() // the same
	}
}
