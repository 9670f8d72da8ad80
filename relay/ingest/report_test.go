package ingest

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"badgerelay/apns"
	pb "badgerelay/proto/badgerelay/v1"
	"badgerelay/relay"
	"badgerelay/relay/registry"
)

// report asks for a mailbox as the organization does.
func (o *organization) report(mailbox string) *pb.MailboxReport {
	o.w.t.Helper()
	synctest.Wait()
	m, err := pb.NewSubscriptionServiceClient(o.w.conn).GetMailbox(o.ctx(), &pb.GetMailboxRequest{Mailbox: mailbox})
	if err != nil {
		o.w.t.Fatal(err)
	}
	return m.GetReport()
}

// timeless has all times of a message be one: the same events take another time where
// more happens.
func timeless(m protoreflect.Message) {
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.Message() == nil:
		case f.IsList():
			for i := range v.List().Len() {
				timeless(v.List().Get(i).Message())
			}
		case f.Message().FullName() == "google.protobuf.Timestamp":
			m.Set(f, protoreflect.ValueOfMessage((&timestamppb.Timestamp{Seconds: 1}).ProtoReflect()))
		default:
			timeless(v.Message())
		}
		return true
	})
}

// TestReportsDoNotTellOfOthers has a device show the sum of two organizations'
// mailboxes. What one of them is told of it is, at every moment, what it is told where
// the other is not there.
func TestReportsDoNotTellOfOthers(t *testing.T) {
	moments := func(t *testing.T, beside bool) (reports []*pb.MailboxReport) {
		w := newWorld(t)
		o := w.enrol("fabrikam.com", testKey(0))
		o.subscribe("ann", "a")
		at := w.open(o.token(time.Hour))
		hello := helloOf(&pb.Agent{Name: "mx"})
		hello.GetHello().AgentId = "mx"
		at.send(hello)
		at.welcome()
		other := func(func(a *agent)) {}
		if beside {
			c := w.enrol("contoso.com", testKey(1))
			c.subscribe("cid", "a")
			a := c.connect()
			other = func(f func(*agent)) { f(a) }
		}
		note := func() {
			time.Sleep(3 * time.Second) // relays look at sums once a second
			r := o.report("ann")
			timeless(r.ProtoReflect())
			reports = append(reports, r)
		}
		count := func(n uint32) *pb.Event { return &pb.Event{Mailbox: "ann", UnreadCount: n} }
		note()
		other(func(a *agent) { a.batch(1, &pb.Event{Mailbox: "cid", UnreadCount: 5}); a.settled(1) })
		note()
		at.batch(1, count(3))
		at.settled(1)
		note()
		w.setMute(true)
		other(func(a *agent) { a.batch(2, &pb.Event{Mailbox: "cid", UnreadCount: 6}) })
		note() // the other's count waits
		at.batch(2, count(4))
		note() // both wait
		w.setMute(false)
		at.settled(2)
		note()
		other(func(a *agent) { a.settled(2) })
		note()
		return reports
	}
	var alone, beside []*pb.MailboxReport
	bubble(t, func(t *testing.T) { alone = moments(t, false) })
	bubble(t, func(t *testing.T) { beside = moments(t, true) })
	for i := range alone {
		if !proto.Equal(alone[i], beside[i]) {
			t.Errorf("moment %d: beside another organization it is told\n%v\nand alone\n%v", i, beside[i], alone[i])
		}
	}
	if d := alone[2].GetRelays()[0].GetDevices()[0]; d.Badge == nil || d.GetBadge() != 3 || alone[4].GetRelays()[0].GetDevices()[0].GetWait() != pb.Wait_WAIT_STREAM {
		t.Errorf("got %v and %v; want a badge of 3, and one that waits", alone[2], alone[4])
	}
}

// TestAProbeIsNoAgent has a stream ask whether it would be accepted, while an agent's is
// open and after it left: neither takes its place in a report.
func TestAProbeIsNoAgent(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		o := w.enrol("fabrikam.com", testKey(0))
		o.subscribe("ann", "a")
		hello := helloOf(&pb.Agent{Name: "mx"})
		hello.GetHello().AgentId = "mx"
		mx := w.open(o.token(time.Hour))
		mx.send(hello)
		mx.welcome()
		probe := func() *agent {
			p := w.open(o.token(time.Hour))
			hello := helloOf(&pb.Agent{Name: "probe"})
			hello.GetHello().Probe = true
			p.send(hello)
			p.welcome()
			return p
		}
		open := probe()
		if r := o.report("ann").GetRelays()[0]; len(r.GetStreams()) != 1 || r.GetStreams()[0].GetAgentId() != "mx" {
			t.Errorf("beside a probe the agents are %v, want mx alone", r.GetStreams())
		}
		mx.cancel()
		synctest.Wait()
		open.cancel()
		synctest.Wait()
		if r := o.report("ann").GetRelays()[0]; r.GetLastDeparture().GetAgentId() != "mx" {
			t.Errorf("the last agent that left is %v, want mx", r.GetLastDeparture())
		}
	})
}

// TestAgentsThatAreRefused has the relay refuse agents whose tokens are good: the report
// names the last one until one is accepted.
func TestAgentsThatAreRefused(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		o := w.enrol("fabrikam.com", testKey(0), registry.Limits{MaxStreams: 1})
		want := func(id, reason string) {
			t.Helper()
			d := o.report("ann").GetRelays()[0].GetLastRefusal()
			if d.GetAgentId() != id || d.GetReason() != reason || (d == nil) != (reason == "") {
				t.Errorf("the last agent that was refused is %v, want %q, told %q", d, id, reason)
			}
		}
		hello := func(old, probe bool) *pb.StreamRequest {
			h := helloOf(&pb.Agent{Name: "mx"})
			h.GetHello().AgentId, h.GetHello().Probe = "mx", probe
			if old {
				h.GetHello().Agent.Product, h.GetHello().Agent.ProductVersion = "Exchange", "15.0.712.24"
			}
			return h
		}
		refused := func(probe bool) {
			t.Helper()
			a := w.open(o.token(time.Hour))
			a.send(hello(true, probe))
			a.ends(codes.FailedPrecondition, "PRODUCT_TOO_OLD")
		}
		refused(true)
		want("", "")
		refused(false)
		want("mx", "PRODUCT_TOO_OLD")
		accepted := w.open(o.token(time.Hour))
		accepted.send(hello(false, false))
		accepted.welcome()
		want("", "")
		second := w.open(o.token(time.Hour))
		other := hello(false, false)
		other.GetHello().AgentId = "mx2"
		second.send(other)
		second.ends(codes.ResourceExhausted, "LIMIT_REACHED")
		want("mx2", "LIMIT_REACHED")
		long := w.open(o.token(time.Hour))
		odd := hello(true, false)
		odd.GetHello().AgentId = strings.Repeat("x", 129)
		long.send(odd)
		long.ends(codes.InvalidArgument, "FIELD_INVALID")
		want("mx2", "LIMIT_REACHED") // an id that is none is not kept
		if w.enrol("contoso.com", testKey(1)).report("ann").GetRelays()[0].GetLastRefusal() != nil {
			t.Error("another organization is told of the refusal")
		}
	})
}

// TestAQuarantineOfAnAppAsItWasIsOver has an operator correct an app after APNs refused a
// device.
func TestAQuarantineOfAnAppAsItWasIsOver(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		o := w.enrol("fabrikam.com", testKey(0))
		o.subscribe("ann", "a")
		token, err := apns.ParseDeviceToken(device("a"))
		if err != nil {
			t.Fatal(err)
		}
		w.relay.SetGeneration(testApp, 1)
		judged, err := w.registry.Refuse(t.Context(), []relay.Refusal{{
			Key: relay.MailboxKey{Organization: o.id, Mailbox: "ann"}, App: testApp, Device: token, Reason: apns.ReasonBadDeviceToken,
			Registered: time.Now(), Generation: 1,
		}})
		if err != nil || judged[0].Verdict != relay.RefusalHolds {
			t.Fatalf("%+v, %v", judged, err)
		}
		if got := o.report("ann").GetSubscriptions()[0].GetHeldReason(); got != "BadDeviceToken" {
			t.Errorf("the device is held for %q, want BadDeviceToken", got)
		}
		w.relay.SetGeneration(testApp, 2)
		if got := o.report("ann").GetSubscriptions()[0].GetHeldReason(); got != "" {
			t.Errorf("the device is held for %q by what the app was before", got)
		}
	})
}

// TestReportsNameNoMachine has an organization ask for a report: the relay's host name
// and listening address are the operator's.
func TestReportsNameNoMachine(t *testing.T) {
	m := &pb.MailboxReport{Relays: []*pb.RelayReport{{Name: "relay-b/10.0.0.2:8443"}, {Name: "relay-a/10.0.0.1:8443"}, {Name: "relay-c/[::1]:8443"}}}
	keepOwn(m)
	var names []string
	for _, r := range m.GetRelays() {
		names = append(names, r.GetName())
	}
	if got := strings.Join(names, " "); got != "2 1 3" { // the same whichever relay is asked
		t.Errorf("relays are named %s, want 2 1 3", got)
	}
}

// TestOneReportAtATime has an organization ask for a second report while one is made.
func TestOneReportAtATime(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		o, other := w.enrol("fabrikam.com", testKey(0)), w.enrol("contoso.com", testKey(1))
		done, err := w.server.reporter.begin(o.id)
		if err != nil {
			t.Fatal(err)
		}
		_, err = pb.NewSubscriptionServiceClient(w.conn).GetMailbox(o.ctx(), &pb.GetMailboxRequest{Mailbox: "ann"})
		wantRefusal(t, err, codes.ResourceExhausted, "QUOTA_EXCEEDED")
		other.report("ann")
		done()
		o.report("ann")
		_, err = pb.NewSubscriptionServiceClient(w.conn).GetMailbox(o.ctx(), &pb.GetMailboxRequest{})
		wantField(t, err, "mailbox")
	})
}

func TestSimilarMailboxes(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		o := w.enrol("fabrikam.com", testKey(0))
		var all []registry.Registration
		for _, name := range []string{"ann@fabrikam.com", "Anna@fabrikam.com", "bob@fabrikam.com", "bob@fabrikam.de", "zoe@fabrikam.com", "y"} {
			token, err := apns.ParseDeviceToken(device(string(rune('a' + len(all)))))
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, registry.Registration{Mailbox: name, App: testApp, Device: token})
		}
		if _, err := w.registry.ImportSubscriptions(t.Context(), o.id, all); err != nil {
			t.Fatal(err)
		}
		for asked, want := range map[string]string{
			"ANN@fabrikam.com": "ann@fabrikam.com", "amn@fabrikam.com": "ann@fabrikam.com", "bob@fabrikam.org": "bob@fabrikam.com",
			"zo@fabrikam.com": "zoe@fabrikam.com", "nobody@fabrikam.com": "", "x": "", "é": "",
			"abn@fabrikam.com": "ann@fabrikam.com", "bbo@fabrikam.com": "bob@fabrikam.com", "x@fabrikam.com": "", "axy@fabrikam.com": "", "bab@fabrikam.com": "bob@fabrikam.com",
			"bab@fabrikam.cmo": "", "zoe@fabrikam.cmo": "zoe@fabrikam.com",
		} {
			got := o.report(asked).GetSimilarMailboxes()
			if want == "" && len(got) > 0 || want != "" && (len(got) == 0 || got[0] != want) {
				t.Errorf("%s is like %q, want %q first", asked, got, want)
			}
		}
	})
}

// TestWaitsAreToldApart: each of the relay's is one of the contract's.
func TestWaitsAreToldApart(t *testing.T) {
	told := map[pb.Wait]relay.Wait{}
	for w := relay.WaitNone; w <= relay.WaitQuarantine; w++ {
		if was, twice := told[wireWait(w)]; twice {
			t.Errorf("waits %d and %d are both told as %v", was, w, wireWait(w))
		}
		told[wireWait(w)] = w
	}
	if len(told) != len(pb.Wait_name) {
		t.Errorf("%d waits are told, the contract has %d", len(told), len(pb.Wait_name))
	}
}
