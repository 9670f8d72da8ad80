package ingest

import (
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"badgerelay/apns"
	pb "badgerelay/proto/badgerelay/v1"
	"badgerelay/relay"
	"badgerelay/relay/registry"
)

// bubble runs a test in fake time. The keys are made outside: that takes real time.
func bubble(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	for i := range 3 {
		testKey(i)
	}
	synctest.Test(t, test)
}

// TestStream shows how the harness is used.
func TestStream(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, func(c *Config) { c.CoalescingWindow = time.Second })
		o := w.enrol("fabrikam.com", testKey(0))
		o.subscribe("ann", "a")

		a := w.open(o.token(time.Hour))
		a.hello()
		welcome := a.welcome()
		if welcome.GetRelayVersion() != "1.2.3" || welcome.GetInstance() != "one" || welcome.GetMaxBatchEvents() != 10_000 ||
			welcome.GetCoalescingWindow().AsDuration() != time.Second || welcome.GetMaxInFlight().AsDuration() != MaxInFlight {
			t.Errorf("got %v", welcome)
		}
		if got, want := welcome.GetTokenExpiresAt().AsTime(), time.Now().Add(time.Hour); !got.Equal(want.UTC()) {
			t.Errorf("the token expires at %v, want %v", got, want)
		}

		a.batch(41, &pb.Event{Mailbox: "ann", UnreadCount: 7}, &pb.Event{Mailbox: "bob", UnreadCount: 1})
		outcomes := a.settled(42)
		if len(outcomes) != 1 || outcomes[42].GetOutcome() != pb.Outcome_OUTCOME_NO_SUBSCRIPTION {
			t.Errorf("got %v, want 41 delivered and 42 without a subscription", outcomes)
		}
		a.batch(43, &pb.Event{Mailbox: "ann", UnreadCount: 7})
		if outcomes := a.settled(43); outcomes[43].GetOutcome() != pb.Outcome_OUTCOME_UNCHANGED {
			t.Errorf("got %v, want 43 unchanged", outcomes)
		}
		if err := a.stream.CloseSend(); err != nil {
			t.Fatal(err)
		}
		if _, err := a.stream.Recv(); !errors.Is(err, io.EOF) {
			t.Errorf("got %v, want the end", err)
		}
	})
}

func TestBadEventsAreRejectedAlone(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		o := w.enrol("fabrikam.com", testKey(0))
		o.subscribe("ann", "a")
		a := o.connect()
		a.batch(1,
			&pb.Event{Mailbox: ""},
			&pb.Event{Mailbox: strings.Repeat("x", 257)},
			&pb.Event{Mailbox: "\xff"},
			&pb.Event{Mailbox: "ann", UnreadCount: math.MaxInt32 + 1},
			&pb.Event{Mailbox: "ann", UnreadCount: 3, Epoch: 2, Version: 10},
		)
		outcomes := a.settled(5)
		for sequence, field := range map[uint64]string{1: "mailbox", 2: "mailbox", 3: "mailbox", 4: "unread_count"} {
			if got := outcomes[sequence]; got.GetOutcome() != pb.Outcome_OUTCOME_REJECTED || got.GetField() != field || got.GetDetail() == "" {
				t.Errorf("event %d: got %v, want it rejected for its %s", sequence, got, field)
			}
		}
		if got, told := outcomes[5]; told {
			t.Errorf("event 5: got %v, want it delivered", got)
		}
		a.batch(6, &pb.Event{Mailbox: "ann", UnreadCount: 4, Epoch: 2, Version: 9})
		if got, told := a.settled(6)[6]; told {
			t.Errorf("event 6, of the same agent with an older version: got %v, want it delivered", got)
		}
		other := o.connect()
		other.batch(1, &pb.Event{Mailbox: "ann", UnreadCount: 5, Epoch: 2, Version: 8})
		if got := other.settled(1)[1]; got.GetOutcome() != pb.Outcome_OUTCOME_STALE {
			t.Errorf("another agent's event, of an older version: got %v, want it stale", got)
		}
	})
}

func TestStreamRules(t *testing.T) { bubble(t, testStreamRules) }

func testStreamRules(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.MaxBatchEvents = 10 })
	o := w.enrol("fabrikam.com", testKey(0))
	hello := helloOf(&pb.Agent{Name: "mx1"})
	event := &pb.Event{Mailbox: "ann"}
	eleven := make([]*pb.Event, 11)
	for i := range eleven {
		eleven[i] = event
	}
	for name, test := range map[string]struct {
		messages []*pb.StreamRequest
		code     codes.Code
		reason   string
		field    string
	}{
		"batch before hello":      {[]*pb.StreamRequest{batchOf(1, event)}, codes.InvalidArgument, "HELLO_MISSING", ""},
		"empty message first":     {[]*pb.StreamRequest{{}}, codes.InvalidArgument, "HELLO_MISSING", ""},
		"token before hello":      {[]*pb.StreamRequest{{Message: &pb.StreamRequest_FreshToken{FreshToken: &pb.FreshToken{}}}}, codes.InvalidArgument, "HELLO_MISSING", ""},
		"hello twice":             {[]*pb.StreamRequest{hello, hello}, codes.InvalidArgument, "HELLO_REPEATED", ""},
		"hello without agent":     {[]*pb.StreamRequest{helloOf(nil)}, codes.InvalidArgument, "FIELD_INVALID", "agent"},
		"old product":             {[]*pb.StreamRequest{helloOf(&pb.Agent{Name: "m", Product: "Exchange", ProductVersion: "15.0.712.24"})}, codes.FailedPrecondition, "PRODUCT_TOO_OLD", ""},
		"empty message":           {[]*pb.StreamRequest{hello, {}}, codes.InvalidArgument, "FIELD_INVALID", "message"},
		"negative delay":          {[]*pb.StreamRequest{hello, settlementDelay(-1)}, codes.InvalidArgument, "FIELD_INVALID", "settlement_delay.max_delay"},
		"delay too long":          {[]*pb.StreamRequest{hello, settlementDelay(maxSettlementDelay + 1)}, codes.InvalidArgument, "FIELD_INVALID", "settlement_delay.max_delay"},
		"delay before hello":      {[]*pb.StreamRequest{settlementDelay(time.Second)}, codes.InvalidArgument, "HELLO_MISSING", ""},
		"empty batch":             {[]*pb.StreamRequest{hello, batchOf(1)}, codes.InvalidArgument, "FIELD_INVALID", "batch.events"},
		"sequence 0":              {[]*pb.StreamRequest{hello, batchOf(0, event)}, codes.InvalidArgument, "FIELD_INVALID", "batch.first_sequence"},
		"sequence at its end":     {[]*pb.StreamRequest{hello, batchOf(math.MaxUint64, event)}, codes.InvalidArgument, "FIELD_INVALID", "batch.first_sequence"},
		"sequence gap":            {[]*pb.StreamRequest{hello, batchOf(5, event), batchOf(7, event)}, codes.InvalidArgument, "SEQUENCE_GAP", "batch.first_sequence"},
		"sequence again":          {[]*pb.StreamRequest{hello, batchOf(5, event), batchOf(5, event)}, codes.InvalidArgument, "SEQUENCE_GAP", "batch.first_sequence"},
		"batch over the limit":    {[]*pb.StreamRequest{hello, batchOf(1, eleven...)}, codes.InvalidArgument, "BATCH_TOO_LARGE", "batch.events"},
		"fresh token is no token": {[]*pb.StreamRequest{hello, {Message: &pb.StreamRequest_FreshToken{FreshToken: &pb.FreshToken{Token: "x"}}}}, codes.Unauthenticated, "TOKEN_MALFORMED", ""},
	} {
		t.Log(name)
		a := w.open(o.token(time.Hour))
		for _, m := range test.messages {
			a.send(m)
		}
		err := a.ends(test.code, test.reason)
		if got := metadataOf(err)["field"]; got != test.field {
			t.Errorf("%s: got field %q, want %q", name, got, test.field)
		}
	}
}

func TestHelloTimeout(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		o := w.enrol("fabrikam.com", testKey(0))
		token := o.token(time.Hour)
		late, start := w.open(token), time.Now()
		connected := o.connect()
		late.ends(codes.InvalidArgument, "HELLO_MISSING")
		if got := time.Since(start); got != 10*time.Second {
			t.Errorf("ended after %v, want 10 s", got)
		}
		time.Sleep(time.Minute)
		connected.batch(1, &pb.Event{Mailbox: "ann"})
		connected.settled(1)
	})
}

func TestStreamDoesNotOutliveItsToken(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		o := w.enrol("fabrikam.com", testKey(0))
		a, start := o.connect(), time.Now()
		a.ends(codes.Unauthenticated, "TOKEN_EXPIRED")
		if got := time.Since(start); got != time.Hour+refusedAfter {
			t.Errorf("ended after %v, want the token's hour and the clock skew", got)
		}
	})
}

func TestFreshToken(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		o := w.enrol("fabrikam.com", testKey(0))
		a, start := o.connect(), time.Now()
		time.Sleep(50 * time.Minute)
		a.freshToken(o.token(time.Hour))
		accepted := a.receive().GetTokenAccepted()
		if got, want := accepted.GetTokenExpiresAt().AsTime(), time.Now().Add(time.Hour).UTC(); !got.Equal(want) {
			t.Errorf("the fresh token expires at %v, want %v", got, want)
		}
		time.Sleep(50 * time.Minute) // beyond the first one
		a.batch(1, &pb.Event{Mailbox: "ann"})
		a.settled(1)
		a.ends(codes.Unauthenticated, "TOKEN_EXPIRED")
		if got := time.Since(start); got != 110*time.Minute+refusedAfter {
			t.Errorf("ended after %v, want 110 minutes and the clock skew", got)
		}
	})
}

func TestFreshTokenOfAnotherOrganization(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		o, other := w.enrol("fabrikam.com", testKey(0)), w.enrol("contoso.com", testKey(1))
		a := o.connect()
		a.freshToken(other.token(time.Hour))
		a.ends(codes.Unauthenticated, "TOKEN_REALM")
	})
}

func TestRemovedCredentialEndsItsStreams(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		o, other := w.enrol("fabrikam.com", testKey(0)), w.enrol("contoso.com", testKey(1))
		second, err := w.registry.AddCredential(t.Context(), o.id, registry.NewCredential{Certificate: testKey(2).Certificate.Raw})
		if err != nil {
			t.Fatal(err)
		}
		rolled := *o
		rolled.key, rolled.credential = testKey(2), second.ID

		doomed, kept, renewed, apart := o.connect(), rolled.connect(), o.connect(), other.connect()
		renewed.freshToken(rolled.token(time.Hour))
		renewed.receive()
		start := time.Now()
		if err := w.registry.RemoveCredential(t.Context(), o.id, o.credential); err != nil {
			t.Fatal(err)
		}
		doomed.ends(codes.Unauthenticated, "CREDENTIAL_REVOKED")
		if got := time.Since(start); got > time.Second {
			t.Errorf("ended after %v, want a second at most", got)
		}
		for _, a := range []*agent{kept, renewed, apart} {
			a.batch(1, &pb.Event{Mailbox: "ann"})
			a.settled(1)
		}
		w.open(o.token(time.Hour)).ends(codes.Unauthenticated, "TOKEN_KEY_UNKNOWN")
	})
}

func TestDisabledAndRemovedOrganizations(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		disabled, removed := w.enrol("fabrikam.com", testKey(0)), w.enrol("contoso.com", testKey(1))
		kept := w.enrol("tailspin.com", testKey(2)).connect()
		first, second := disabled.connect(), removed.connect()
		off := false
		if _, err := w.registry.UpdateOrganization(t.Context(), "fabrikam.com", registry.OrganizationUpdate{Enabled: &off}); err != nil {
			t.Fatal(err)
		}
		first.ends(codes.PermissionDenied, "ORGANIZATION_DISABLED")
		w.open(disabled.token(time.Hour)).ends(codes.PermissionDenied, "ORGANIZATION_DISABLED")
		if err := w.registry.RemoveOrganization(t.Context(), "contoso.com"); err != nil {
			t.Fatal(err)
		}
		second.ends(codes.PermissionDenied, "ORGANIZATION_DISABLED")
		kept.batch(1, &pb.Event{Mailbox: "ann"})
		kept.settled(1)
	})
}

func TestStreamLimits(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, func(c *Config) { c.MaxStreams, c.MaxOrganizationStreams = 4, 2 })
		small := w.enrol("fabrikam.com", testKey(0), registry.Limits{MaxStreams: 1})
		plain := w.enrol("contoso.com", testKey(1))
		large := w.enrol("tailspin.com", testKey(2), registry.Limits{MaxStreams: 10})

		beyond := func(o *organization) error {
			t.Helper()
			a := w.open(o.token(time.Hour))
			a.hello()
			return a.ends(codes.ResourceExhausted, "LIMIT_REACHED")
		}
		only := small.connect()
		err := beyond(small)
		if got := metadataOf(err); got["limit"] != "max_streams" || got["max"] != "1" {
			t.Errorf("got %v, want the organization's own limit of 1", got)
		}
		plain.connect()
		plain.connect()
		_ = beyond(plain)
		large.connect()
		err = beyond(large)
		if got := metadataOf(err)["limit"]; got != "relay_streams" {
			t.Errorf("got limit %q, want the relay's", got)
		}
		only.cancel()
		synctest.Wait()
		small.connect() // the place is free again
	})
}

// TestAgentAtItsLimit has an agent whose organization may have no other stream: it asks
// whether it would be accepted, and reconnects while the relay has not noticed the end of
// the stream of before.
func TestAgentAtItsLimit(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, func(c *Config) { c.MaxStreams = 1 })
		o := w.enrol("fabrikam.com", testKey(0), registry.Limits{MaxStreams: 1})
		hello := func(instance string, number uint64, probe bool) *agent {
			t.Helper()
			a := w.open(o.token(time.Hour))
			a.send(&pb.StreamRequest{Message: &pb.StreamRequest_Hello{Hello: &pb.Hello{
				Agent: &pb.Agent{Name: "mx"}, AgentId: "mx", Instance: instance, Number: number, Probe: probe,
			}}})
			return a
		}
		first := hello("1", 1, false)
		first.welcome()
		for range 3 * spareOpenings {
			asks := hello("1", 1, true)
			asks.welcome()
			if _, err := asks.stream.Recv(); !errors.Is(err, io.EOF) {
				t.Fatalf("a probe that has its answer goes on, or ends with %v", err)
			}
		}
		second := hello("1", 2, false)
		second.welcome()
		first.ends(codes.Aborted, "STREAM_REPLACED")
		hello("1", 1, false).ends(codes.Aborted, "STREAM_REPLACED")
		hello("2", 1, false).ends(codes.ResourceExhausted, "LIMIT_REACHED") // another process
		second.batch(1, &pb.Event{Mailbox: "ann"})
		second.settled(1)
		if n := w.server.Streams(o.id); n != 1 {
			t.Errorf("%d streams are open, want one", n)
		}
	})
}

// TestSilentStreamsAreBounded opens streams, and says no hello on them.
func TestSilentStreamsAreBounded(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		o := w.enrol("fabrikam.com", testKey(0), registry.Limits{MaxStreams: 1})
		for range 1 + spareOpenings {
			w.open(o.token(time.Hour))
		}
		synctest.Wait()
		w.open(o.token(time.Hour)).ends(codes.ResourceExhausted, "LIMIT_REACHED")
		time.Sleep(w.server.helloTimeout)
		synctest.Wait()
		o.connect() // they have ended
	})
}

// TestSlowReader floods a stream whose agent reads no settlements: the relay
// stops reading it, and goes on when the agent does.
func TestSlowReader(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		a := w.enrol("fabrikam.com", testKey(0)).connect()
		events := make([]*pb.Event, 5000)
		for i := range events {
			events[i] = &pb.Event{Mailbox: strings.Repeat("x", 257)} // an outcome with text for each
		}
		// Far more than a reader's relay keeps: fourteen batches being sent, if the
		// sender came late, as many that have settled, and three or four in buffers.
		const batches = 45
		sent := 0
		done := make(chan struct{})
		go func() {
			defer close(done)
			for i := range uint64(batches) {
				a.batch(1+i*uint64(len(events)), events...)
				sent++
			}
		}()
		synctest.Wait()
		if sent == batches {
			t.Error("the relay read it all while nobody read its settlements")
		}
		a.settled(batches * uint64(len(events)))
		<-done
	})
}

// TestEndWhileSenderIsBlocked ends a stream whose agent reads nothing.
func TestEndWhileSenderIsBlocked(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		o := w.enrol("fabrikam.com", testKey(0))
		a := o.connect()
		events := make([]*pb.Event, 10_000)
		for i := range events {
			events[i] = &pb.Event{Mailbox: ""}
		}
		go a.batch(1, events...)
		synctest.Wait()
		if err := w.registry.RemoveCredential(t.Context(), o.id, o.credential); err != nil {
			t.Fatal(err)
		}
		time.Sleep(flushTime)
		synctest.Wait()
		if got := w.server.Streams(o.id); got != 0 {
			t.Errorf("%d streams are open, want none", got)
		}
	})
}

// TestNoRoomForMailboxes sends more mailboxes with pending counts than the relay
// may keep: what it had to let go is never acknowledged, and the end of the
// stream says why.
func TestNoRoomForMailboxes(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorldOf(t, func(c *relay.Config) { c.MaxMailboxes = 1 })
		w.setMute(true)
		o := w.enrol("fabrikam.com", testKey(0))
		const n = 1000
		rows, events := make([]registry.Registration, n), make([]*pb.Event, n)
		for i := range rows {
			d, err := apns.DeviceTokenFromBytes(fmt.Sprintf("%032d", i))
			if err != nil {
				t.Fatal(err)
			}
			mailbox := fmt.Sprint("mailbox-", i)
			rows[i], events[i] = registry.Registration{Mailbox: mailbox, App: testApp, Device: d}, &pb.Event{Mailbox: mailbox, UnreadCount: 1}
		}
		if got, err := w.registry.ImportSubscriptions(t.Context(), o.id, rows); err != nil || got.Created != n {
			t.Fatalf("import: %+v, %v", got, err)
		}
		a := o.connect()
		a.batch(1, events...)
		if _, err := a.stream.Recv(); status.Code(err) != codes.ResourceExhausted || reasonOf(err) != "LIMIT_REACHED" {
			t.Errorf("got %v, want the stream to end for want of room, and nothing settled before", err)
		}
		a.cancel()
		w.setMute(false)
	})
}
