package ingest

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"

	"badgerelay/apns"
	pb "badgerelay/proto/badgerelay/v1"
	"badgerelay/relay"
	"badgerelay/relay/internal/service"
	"badgerelay/relay/registry"
)

func TestSubscribe(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		o := w.enrol("fabrikam.com", testKey(0))
		first := o.subscribe("ann", "A")
		s := first.GetSubscription()
		if !first.GetCreated() || s.GetMailbox() != "ann" || s.GetApp() != testApp || s.GetDeviceToken() != device("a") ||
			s.GetCreatedAt() == nil || s.GetRegisteredAt() == nil || s.GetExpiresAt() != nil || s.GetRemovedAt() != nil {
			t.Errorf("got %v", first)
		}
		if again := o.subscribe("ann", "a"); again.GetCreated() {
			t.Errorf("the same again: got %v, want it renewed", again)
		}
		if moved := o.subscribe("bob", "a"); !slices.Equal(moved.GetLeftMailboxes(), []string{"ann"}) || !moved.GetCreated() {
			t.Errorf("moved: got %v, want that it left ann", moved)
		}
		client := pb.NewSubscriptionServiceClient(w.conn)
		request := &pb.UnsubscribeRequest{Mailbox: "bob", App: testApp, DeviceToken: device("a")}
		if _, err := client.Unsubscribe(o.ctx(), request); err != nil {
			t.Error(err)
		}
		_, err := client.Unsubscribe(o.ctx(), request)
		wantRefusal(t, err, codes.NotFound, "SUBSCRIPTION_NOT_FOUND")
	})
}

func TestDeviceOnSeveralMailboxes(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		o := w.enrol("fabrikam.com", testKey(0))
		other := w.enrol("other.com", testKey(1))
		client := pb.NewSubscriptionServiceClient(w.conn)
		o.subscribe("ann", "a")
		other.subscribe("bert", "a")
		m, err := client.Subscribe(o.ctx(), &pb.SubscribeRequest{Mailbox: "sales", App: testApp, DeviceToken: device("a"), KeepOthers: true})
		if err != nil || !m.GetCreated() || len(m.GetLeftMailboxes()) > 0 || !slices.Equal(m.GetSubscription().GetOtherMailboxes(), []string{"ann"}) {
			t.Errorf("got %v, %v, want the device on both", m, err)
		}
		set := func(added, removed, kept string, mailboxes ...string) {
			t.Helper()
			m, err := client.SetDevice(o.ctx(), &pb.SetDeviceRequest{App: testApp, DeviceToken: device("A"), Mailboxes: mailboxes})
			if err != nil || strings.Join(m.GetAdded(), " ") != added || strings.Join(m.GetRemoved(), " ") != removed || strings.Join(m.GetKept(), " ") != kept {
				t.Errorf("%q: got %v, %v; want added %q, removed %q, kept %q", mailboxes, m, err, added, removed, kept)
			}
		}
		set("board", "ann", "sales", "sales", "board", "sales")
		set("", "", "board sales", "board", "sales")
		list, err := client.ListSubscriptions(o.ctx(), &pb.ListSubscriptionsRequest{})
		if err != nil || len(list.GetSubscriptions()) != 2 || !slices.Equal(list.GetSubscriptions()[0].GetOtherMailboxes(), []string{"sales"}) {
			t.Errorf("got %v, %v; want two that name each other and nobody else", list, err)
		}
		list, err = client.ListSubscriptions(other.ctx(), &pb.ListSubscriptionsRequest{})
		if err != nil || len(list.GetSubscriptions()) != 1 || len(list.GetSubscriptions()[0].GetOtherMailboxes()) > 0 {
			t.Errorf("the other organization got %v, %v; want its own alone", list, err)
		}
		w.server.SetApps(nil)
		set("", "board sales", "") // also for an app that is not configured any more
		_, err = client.SetDevice(o.ctx(), &pb.SetDeviceRequest{App: testApp, DeviceToken: device("a"), Mailboxes: []string{"ann"}})
		wantRefusal(t, err, codes.InvalidArgument, "APP_UNKNOWN")
	})
}

func TestSetDeviceRules(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		o := w.enrol("fabrikam.com", testKey(0))
		client := pb.NewSubscriptionServiceClient(w.conn)
		o.subscribe("ann", "a")
		names := make([]string, registry.MaxDeviceMailboxes+1)
		for i := range names {
			names[i] = fmt.Sprint("m", i)
		}
		for _, test := range []struct {
			app, device string
			mailboxes   []string
			field       string
		}{
			{"", device("a"), nil, "app"},
			{testApp, "", nil, "device_token"},
			{testApp, "ab", []string{"ann"}, "device_token"},
			{testApp, device("a"), []string{"ann", ""}, "mailboxes[1]"},
			{testApp, device("a"), []string{strings.Repeat("x", 257)}, "mailboxes[0]"},
			{testApp, device("a"), []string{"a", "b", "\xff"}, "mailboxes[2]"},
			{testApp, device("a"), names, "mailboxes"},
		} {
			_, err := client.SetDevice(o.ctx(), &pb.SetDeviceRequest{App: test.app, DeviceToken: test.device, Mailboxes: test.mailboxes})
			wantRefusal(t, err, codes.InvalidArgument, "FIELD_INVALID")
			wantField(t, err, test.field)
		}
		for _, again := range []int{1, 10_000} { // a name that comes twice counts once
			mailboxes := append(slices.Clone(names[1:]), slices.Repeat([]string{names[1]}, again)...)
			if _, err := client.SetDevice(o.ctx(), &pb.SetDeviceRequest{App: testApp, DeviceToken: device("a"), Mailboxes: mailboxes}); err != nil {
				t.Fatal(err)
			}
		}
		_, err := client.Subscribe(o.ctx(), &pb.SubscribeRequest{Mailbox: names[0], App: testApp, DeviceToken: device("a"), KeepOthers: true})
		wantRefusal(t, err, codes.ResourceExhausted, "LIMIT_REACHED")
		if got := err.Error(); !strings.Contains(got, "the limit of 100 device_mailboxes is reached") {
			t.Errorf("got %q, want the device's limit", got)
		}
	})
}

// TestListOfLongNamesFitsIntoAMessage has devices on many mailboxes with the
// longest names.
func TestListOfLongNamesFitsIntoAMessage(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		o := w.enrol("fabrikam.com", testKey(0))
		client := pb.NewSubscriptionServiceClient(w.conn)
		names := make([]string, registry.MaxDeviceMailboxes)
		for i := range names {
			names[i] = strings.Repeat("x", 250) + fmt.Sprintf("%06d", i)
		}
		for _, digit := range []string{"a", "b", "c"} {
			if _, err := client.SetDevice(o.ctx(), &pb.SetDeviceRequest{App: testApp, DeviceToken: device(digit), Mailboxes: names}); err != nil {
				t.Fatal(err)
			}
		}
		seen, pages := 0, 0
		for request := (&pb.ListSubscriptionsRequest{PageSize: 1000}); ; pages++ {
			m, err := client.ListSubscriptions(o.ctx(), request)
			if err != nil {
				t.Fatal(err)
			}
			seen += len(m.GetSubscriptions())
			if request.PageToken = m.GetNextPageToken(); request.PageToken == "" {
				break
			}
		}
		if seen != 300 || pages < 2 {
			t.Errorf("%d subscriptions in %d pages, want 300 in several", seen, pages+1)
		}
	})
}

func TestSubscriptionRules(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		ctx := w.enrol("fabrikam.com", testKey(0)).ctx()
		client := pb.NewSubscriptionServiceClient(w.conn)
		for _, test := range []struct{ mailbox, app, device, field string }{
			{"", testApp, device("a"), "mailbox"},
			{strings.Repeat("x", 257), testApp, device("a"), "mailbox"},
			{"\xff", testApp, device("a"), "mailbox"},
			{"ann", "", device("a"), "app"},
			{"ann", strings.Repeat("x", 256), device("a"), "app"},
			{"ann", "\xff", device("a"), "app"},
			{"ann", testApp, "", "device_token"},
			{"ann", testApp, device("g"), "device_token"},
			{"ann", testApp, "ab", "device_token"},
			{"ann", testApp, device("a") + "a", "device_token"},
			{"ann", testApp, strings.Repeat("a", 202), "device_token"},
			{"ann", testApp, strings.Repeat("a", 1<<20), "device_token"},
		} {
			_, err := client.Subscribe(ctx, &pb.SubscribeRequest{Mailbox: test.mailbox, App: test.app, DeviceToken: test.device})
			wantField(t, err, test.field)
			_, err = client.Unsubscribe(ctx, &pb.UnsubscribeRequest{Mailbox: test.mailbox, App: test.app, DeviceToken: test.device})
			wantField(t, err, test.field)
		}
		for _, size := range []int{64, 200} {
			if _, err := client.Subscribe(ctx, &pb.SubscribeRequest{Mailbox: strings.Repeat("x", 256), App: testApp, DeviceToken: strings.Repeat("0", size)}); err != nil {
				t.Errorf("a device token of %d digits: %v", size, err)
			}
		}
		_, err := client.ListSubscriptions(ctx, &pb.ListSubscriptionsRequest{Mailbox: "\xff"})
		wantField(t, err, "mailbox")
		_, err = client.ListSubscriptions(ctx, &pb.ListSubscriptionsRequest{PageSize: 1001})
		wantField(t, err, "page_size")
		_, err = client.ListSubscriptions(ctx, &pb.ListSubscriptionsRequest{PageToken: "made up"})
		wantField(t, err, "page_token")
	})
}

func TestApps(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		o := w.enrol("fabrikam.com", testKey(0), registry.Limits{Apps: []string{testApp}})
		client := pb.NewSubscriptionServiceClient(w.conn)
		request := &pb.SubscribeRequest{Mailbox: "ann", App: "com.example.other", DeviceToken: device("a")}
		_, err := client.Subscribe(o.ctx(), request)
		wantRefusal(t, err, codes.InvalidArgument, "APP_UNKNOWN")
		if got := metadataOf(err)["field"]; got != "app" {
			t.Errorf("got field %q, want app", got)
		}
		w.server.SetApps([]string{testApp, "com.example.other"})
		_, err = client.Subscribe(o.ctx(), request)
		wantRefusal(t, err, codes.PermissionDenied, "APP_NOT_ALLOWED")
		w.server.SetApps(nil)
		_, err = client.Subscribe(o.ctx(), &pb.SubscribeRequest{Mailbox: "ann", App: testApp, DeviceToken: device("a")})
		wantRefusal(t, err, codes.InvalidArgument, "APP_UNKNOWN")
	})
}

func TestSubscriptionLimits(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		o := w.enrol("fabrikam.com", testKey(0), registry.Limits{MaxSubscriptions: 1})
		o.subscribe("ann", "a")
		_, err := pb.NewSubscriptionServiceClient(w.conn).Subscribe(o.ctx(), &pb.SubscribeRequest{Mailbox: "ann", App: testApp, DeviceToken: device("b")})
		wantRefusal(t, err, codes.ResourceExhausted, "LIMIT_REACHED")
		if got := metadataOf(err); got["limit"] != "max_subscriptions" || got["max"] != "1" {
			t.Errorf("got %v, want the limit and its value", got)
		}
	})
}

func TestListSubscriptions(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		o := w.enrol("fabrikam.com", testKey(0))
		for _, digit := range []string{"1", "2", "3", "4", "5"} {
			o.subscribe("box"+digit, digit)
		}
		client := pb.NewSubscriptionServiceClient(w.conn)
		var got []string
		for token := ""; ; {
			page, err := client.ListSubscriptions(o.ctx(), &pb.ListSubscriptionsRequest{PageSize: 2, PageToken: token})
			if err != nil {
				t.Fatal(err)
			}
			if len(page.GetSubscriptions()) > 2 {
				t.Errorf("a page of %d, want 2 at most", len(page.GetSubscriptions()))
			}
			for _, s := range page.GetSubscriptions() {
				got = append(got, s.GetMailbox())
			}
			if token = page.GetNextPageToken(); token == "" {
				break
			}
		}
		if want := "[box1 box2 box3 box4 box5]"; fmt.Sprint(got) != want {
			t.Errorf("got %v, want %v", got, want)
		}
		one, err := client.ListSubscriptions(o.ctx(), &pb.ListSubscriptionsRequest{Mailbox: "box3"})
		if err != nil || len(one.GetSubscriptions()) != 1 {
			t.Errorf("got %v, %v, want the one of box3", one, err)
		}
	})
}

func TestImportSubscriptions(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		o := w.enrol("fabrikam.com", testKey(0), registry.Limits{MaxSubscriptions: 3})
		o.subscribe("ann", "a")
		stream, err := pb.NewSubscriptionServiceClient(w.conn).ImportSubscriptions(o.ctx())
		if err != nil {
			t.Fatal(err)
		}
		for _, subscriptions := range [][]*pb.Subscription{
			{
				{Mailbox: "ann", App: testApp, DeviceToken: device("a")},
				{Mailbox: "", App: testApp, DeviceToken: device("b")},
				{Mailbox: "bob", App: testApp, DeviceToken: device("b")},
			},
			{
				{Mailbox: "bob", App: "unknown", DeviceToken: device("c")},
				{Mailbox: "bob", App: testApp, DeviceToken: "zz"},
				{Mailbox: "bob", App: testApp, DeviceToken: device("d")},
				{Mailbox: "bob", App: testApp, DeviceToken: device("e")},
			},
		} {
			if err := stream.Send(&pb.ImportSubscriptionsRequest{Subscriptions: subscriptions}); err != nil {
				t.Fatal(err)
			}
		}
		answer, err := stream.CloseAndRecv()
		if err != nil {
			t.Fatal(err)
		}
		if answer.GetCreated() != 2 || answer.GetRenewed() != 1 || answer.GetRejected() != 4 {
			t.Errorf("got %v, want 2 created, 1 renewed, 4 rejected", answer)
		}
		fields := ""
		for _, r := range answer.GetRejections() {
			fields += fmt.Sprint(r.GetPosition(), r.GetField(), " ")
			if r.GetDetail() == "" {
				t.Errorf("%v has no detail", r)
			}
		}
		if want := "2mailbox 4app 5device_token 7 "; fields != want {
			t.Errorf("got rejections %q, want %q", fields, want)
		}
	})
}

// TestImportInParts imports more than the registry gets at once.
func TestImportInParts(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		o := w.enrol("fabrikam.com", testKey(0), registry.Limits{MaxSubscriptions: registry.ImportBatch + 4})
		stream, err := pb.NewSubscriptionServiceClient(w.conn).ImportSubscriptions(o.ctx())
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, size := range []int{service.MaxImport, service.MaxImport, service.MaxImport, 3, 0, 5} {
			m := &pb.ImportSubscriptionsRequest{}
			for range size {
				n++
				m.Subscriptions = append(m.Subscriptions, &pb.Subscription{Mailbox: "ann", App: testApp, DeviceToken: fmt.Sprintf("%064d", n)})
			}
			if err := stream.Send(m); err != nil {
				t.Fatal(err)
			}
		}
		answer, err := stream.CloseAndRecv()
		if err != nil || answer.GetCreated() != registry.ImportBatch+4 || answer.GetRejected() != 4 || answer.GetRejections()[0].GetPosition() != registry.ImportBatch+5 {
			t.Errorf("got %v, %v, want %d created and what follows refused", answer, err, registry.ImportBatch+4)
		}
	})
}

func TestImportRejectionsAreBounded(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		o := w.enrol("fabrikam.com", testKey(0))
		client := pb.NewSubscriptionServiceClient(w.conn)
		stream, err := client.ImportSubscriptions(o.ctx())
		if err != nil {
			t.Fatal(err)
		}
		bad := make([]*pb.Subscription, 150)
		for range 2 {
			_ = stream.Send(&pb.ImportSubscriptionsRequest{Subscriptions: bad})
		}
		answer, err := stream.CloseAndRecv()
		if err != nil || answer.GetRejected() != 300 || len(answer.GetRejections()) != service.MaxRejections {
			t.Errorf("got %d rejected, %d told, %v, want 300, 100", answer.GetRejected(), len(answer.GetRejections()), err)
		}

		stream, err = client.ImportSubscriptions(o.ctx())
		if err != nil {
			t.Fatal(err)
		}
		_ = stream.Send(&pb.ImportSubscriptionsRequest{Subscriptions: make([]*pb.Subscription, service.MaxImport+1)})
		_, err = stream.CloseAndRecv()
		wantField(t, err, "subscriptions")
	})
}

// watch opens a watch; next returns its next message.
func (o *organization) watch() (next func() (*pb.WatchMailboxesResponse, error)) {
	o.w.t.Helper()
	stream, err := pb.NewSubscriptionServiceClient(o.w.conn).WatchMailboxes(o.ctx(), &pb.WatchMailboxesRequest{})
	if err != nil {
		o.w.t.Fatal(err)
	}
	return stream.Recv
}

func wantChanges(t *testing.T, next func() (*pb.WatchMailboxesResponse, error), complete bool, want string) {
	t.Helper()
	m, err := next()
	if err != nil {
		t.Fatal(err)
	}
	got := ""
	for _, c := range m.GetChanges() {
		got += c.GetMailbox() + map[pb.MailboxChangeKind]string{1: "+", 2: "-", 3: "<"}[c.GetKind()] + " "
	}
	if got != want || m.GetComplete() != complete {
		t.Errorf("got %q, complete %v, want %q, %v", got, m.GetComplete(), want, complete)
	}
}

func TestWatchMailboxes(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		o := w.enrol("fabrikam.com", testKey(0))
		other := w.enrol("contoso.com", testKey(1))
		o.subscribe("ann", "a")
		o.subscribe("ann", "b")
		other.subscribe("secret", "c")
		next := o.watch()
		wantChanges(t, next, true, "ann+ ")
		o.subscribe("bob", "d")
		wantChanges(t, next, false, "bob+ ")
		other.subscribe("secret2", "e") // not told
		client := pb.NewSubscriptionServiceClient(w.conn)
		leave := func(digit string) {
			if _, err := client.Unsubscribe(o.ctx(), &pb.UnsubscribeRequest{Mailbox: "ann", App: testApp, DeviceToken: device(digit)}); err != nil {
				t.Fatal(err)
			}
		}
		leave("a")
		wantChanges(t, next, false, "ann< ") // another stays
		leave("b")
		wantChanges(t, next, false, "ann- ")
		start := time.Now()
		_, err := next()
		wantRefusal(t, err, codes.Unauthenticated, "TOKEN_EXPIRED")
		if got := time.Since(start); got != time.Hour+refusedAfter {
			t.Errorf("ended after %v, want the token's hour and the clock skew", got)
		}
	})
}

func TestWatchOfManyMailboxes(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		o := w.enrol("fabrikam.com", testKey(0))
		var registrations []registry.Registration
		for i := range 2*watchMessage + 1 {
			token, err := apns.ParseDeviceToken(fmt.Sprintf("%064d", i))
			if err != nil {
				t.Fatal(err)
			}
			registrations = append(registrations, registry.Registration{Mailbox: fmt.Sprint("box", i), App: testApp, Device: token})
		}
		if _, err := w.registry.ImportSubscriptions(t.Context(), o.id, registrations); err != nil {
			t.Fatal(err)
		}
		next, seen := o.watch(), map[string]bool{}
		for complete := false; !complete; {
			m, err := next()
			if err != nil {
				t.Fatal(err)
			}
			if len(m.GetChanges()) > watchMessage {
				t.Errorf("a message of %d changes", len(m.GetChanges()))
			}
			for _, c := range m.GetChanges() {
				seen[c.GetMailbox()] = true
			}
			complete = m.GetComplete()
		}
		if len(seen) != 2*watchMessage+1 {
			t.Errorf("told of %d mailboxes, want %d", len(seen), 2*watchMessage+1)
		}
	})
}

func TestWatchEndsWithItsCredential(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		o := w.enrol("fabrikam.com", testKey(0))
		next := o.watch()
		wantChanges(t, next, true, "")
		if err := w.registry.RemoveCredential(t.Context(), o.id, o.credential); err != nil {
			t.Fatal(err)
		}
		_, err := next()
		wantRefusal(t, err, codes.Unauthenticated, "CREDENTIAL_REVOKED")
	})
}

// TestSilentImportEnds has imports that send nothing end like streams do.
func TestSilentImportEnds(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		o := w.enrol("fabrikam.com", testKey(0))
		client := pb.NewSubscriptionServiceClient(w.conn)
		open := func() func() error {
			stream, err := client.ImportSubscriptions(o.ctx())
			if err != nil {
				t.Fatal(err)
			}
			return func() error { return stream.RecvMsg(&pb.ImportSubscriptionsResponse{}) }
		}
		expiring, start := open(), time.Now()
		wantRefusal(t, expiring(), codes.Unauthenticated, "TOKEN_EXPIRED")
		if got := time.Since(start); got != time.Hour+refusedAfter {
			t.Errorf("ended after %v, want the token's hour and the clock skew", got)
		}
		revoked := open()
		synctest.Wait()
		if err := w.registry.RemoveCredential(t.Context(), o.id, o.credential); err != nil {
			t.Fatal(err)
		}
		wantRefusal(t, revoked(), codes.Unauthenticated, "CREDENTIAL_REVOKED")
	})
}

// What comes together is told together, and nothing of it is lost.
func TestWatcherGathers(t *testing.T) {
	const subscribed, unsubscribed, left = pb.MailboxChangeKind_MAILBOX_CHANGE_KIND_SUBSCRIBED, pb.MailboxChangeKind_MAILBOX_CHANGE_KIND_UNSUBSCRIBED, pb.MailboxChangeKind_MAILBOX_CHANGE_KIND_DEVICE_LEFT
	for name, c := range map[string]struct {
		noted []pb.MailboxChangeKind
		want  change
	}{
		"a recount is wanted, and a device leaves": {[]pb.MailboxChangeKind{subscribed, left}, change{subscribed, true}},
		"the last device leaves, and one comes":    {[]pb.MailboxChangeKind{unsubscribed, subscribed}, change{subscribed, true}},
		"two leave":                                {[]pb.MailboxChangeKind{left, unsubscribed}, change{unsubscribed, true}},
		"one leaves":                               {[]pb.MailboxChangeKind{left}, change{left: true}},
	} {
		w := &watcher{changes: map[string]change{}, ready: make(chan struct{}, 1)}
		for _, kind := range c.noted {
			w.note("ann", kind)
		}
		if changes, _ := w.take(); changes["ann"] != c.want {
			t.Errorf("%s: %+v, want %+v", name, changes["ann"], c.want)
		}
	}
}

func TestWatcherIsBounded(t *testing.T) {
	all := watchers{orgs: map[relay.OrganizationID]map[*watcher]struct{}{}}
	w := all.add(1)
	for i := range maxWatchBacklog {
		all.changed(&registry.Change{Kind: registry.ChangeSubscribed, Organization: 1, Mailbox: fmt.Sprint(i), Live: true})
	}
	all.changed(&registry.Change{Kind: registry.ChangeUnsubscribed, Organization: 1, Mailbox: "7"})
	changes, behind := w.take()
	if len(changes) != maxWatchBacklog || behind || changes["7"].kind != pb.MailboxChangeKind_MAILBOX_CHANGE_KIND_UNSUBSCRIBED {
		t.Fatalf("got %d changes, behind %v, 7 %v", len(changes), behind, changes["7"])
	}
	for i := range maxWatchBacklog + 1 {
		w.note(fmt.Sprint(i), pb.MailboxChangeKind_MAILBOX_CHANGE_KIND_SUBSCRIBED)
	}
	if changes, behind := w.take(); len(changes) > maxWatchBacklog || !behind {
		t.Errorf("got %d changes, behind %v, want it bounded and sent away", len(changes), behind)
	}
	all.remove(w)
	if len(all.orgs) != 0 {
		t.Error("the watcher is still known")
	}
}
