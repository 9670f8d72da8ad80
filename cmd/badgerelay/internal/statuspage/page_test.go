package statuspage

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "badgerelay/proto/badgerelay/v1"
)

// sample is a relay of which everything can be said.
type sample struct {
	pb.UnimplementedAdminServiceServer
	status *pb.GetStatusResponse
	failed error // of everything but the status
}

func at(t time.Time) *timestamppb.Timestamp { return timestamppb.New(t) }

func newSample() *sample {
	now := time.Now()
	return &sample{status: &pb.GetStatusResponse{
		Version: "1.2.3", Instance: "relay-3-QWERTYUI", StartedAt: at(now.Add(-50 * time.Hour)), Ready: true,
		Streams: 41, Mailboxes: 1234567, Devices: 2345678, DevicesQueued: 12, DevicesWaiting: 3,
		Ledger: &pb.Ledger{Accepted: 98765, Pending: 17, Outcomes: []*pb.OutcomeCount{
			{Outcome: "delivered", Count: 90000}, {Outcome: "superseded", Count: 8748}, {Outcome: "undeliverable"},
		}},
		Organizations: 2, Credentials: 3, SubscribedMailboxes: 1300000, Subscriptions: 2500000,
		Apps: []*pb.App{
			{Name: "mail", State: "up", Connections: 4, StreamsGranted: 4000, PushesInFlight: 312, ProviderTokenAge: durationpb.New(22 * time.Minute),
				Topic: "com.example.mail", Environment: pb.Environment_ENVIRONMENT_PRODUCTION, Credential: "token", Engine: "native"},
			{Name: "mail-sandbox", State: "refused", Reason: "BadCertificateEnvironment", RefusedSince: at(now), BreakerOpenSince: at(now), Quarantined: 2,
				CertificateExpiresAt: at(now.Add(5*24*time.Hour + time.Hour)), Topic: "com.example.mail", Environment: pb.Environment_ENVIRONMENT_SANDBOX,
				Credential: "certificate", Engine: "apns2", LastError: "apns answered 403 BadCertificateEnvironment"},
		},
		Certificates: []*pb.ListenerCertificate{{Listener: "listen", ExpiresAt: at(now.AddDate(0, 3, 0))}},
	}}
}

// GetStatus implements badgerelayv1.AdminServiceServer.
func (s *sample) GetStatus(context.Context, *pb.GetStatusRequest) (*pb.GetStatusResponse, error) {
	return proto.CloneOf(s.status), nil
}

// ListRelays implements badgerelayv1.AdminServiceServer.
func (s *sample) ListRelays(context.Context, *pb.ListRelaysRequest) (*pb.ListRelaysResponse, error) {
	now := time.Now()
	return &pb.ListRelaysResponse{Relays: []*pb.Relay{
		{Name: "relay-1:8443", State: pb.RelayState_RELAY_STATE_SILENT, Heard: durationpb.New(70 * time.Minute), Status: &pb.GetStatusResponse{
			Version: "1.2.2", StartedAt: at(now.Add(-90 * time.Hour)), Streams: 38, Mailboxes: 1234567, Ledger: &pb.Ledger{Accepted: 5_000_000, Pending: 3},
		}},
		{Name: "relay-2:8443", State: pb.RelayState_RELAY_STATE_NOT_READY, Heard: durationpb.New(3 * time.Second), Status: &pb.GetStatusResponse{
			Version: "1.2.3", StartedAt: at(now.Add(-time.Hour)), NotReadyReason: "draining", Streams: 2, Mailboxes: 1234567, Ledger: &pb.Ledger{Accepted: 12_000, Pending: 1},
		}},
		{Name: "relay-3:8443", State: pb.RelayState_RELAY_STATE_READY, Status: s.status},
		{Name: "relay-4:8443", State: pb.RelayState_RELAY_STATE_STOPPED, Heard: durationpb.New(2 * time.Hour), Status: &pb.GetStatusResponse{}}, // can't be read
	}}, s.failed
}

// ListOrganizations implements badgerelayv1.AdminServiceServer.
func (s *sample) ListOrganizations(context.Context, *pb.ListOrganizationsRequest) (*pb.ListOrganizationsResponse, error) {
	return &pb.ListOrganizationsResponse{NextPageToken: "more", Organizations: []*pb.Organization{
		{Name: "fabrikam.com", Enabled: true, Mailboxes: 900000, Subscriptions: 1500000, Streams: 40},
		{Name: "contoso.example", Mailboxes: 400000, Subscriptions: 1000000},
	}}, s.failed
}

// ListCredentials implements badgerelayv1.AdminServiceServer.
func (s *sample) ListCredentials(_ context.Context, m *pb.ListCredentialsRequest) (*pb.ListCredentialsResponse, error) {
	if m.GetOrganization() != "fabrikam.com" {
		return &pb.ListCredentialsResponse{}, s.failed
	}
	now := time.Now()
	return &pb.ListCredentialsResponse{Credentials: []*pb.Credential{
		{Thumbprint: "E715D622E6304594C9CB68E31AB1BF4448BDB005", EndAt: at(now.AddDate(0, 0, 3)), LastUsedAt: at(now.Add(-40 * time.Second))},
		{Thumbprint: "0B15D622E6304594C9CB68E31AB1BF4448BDB0AA", EndAt: at(now.AddDate(4, 0, 0))},
	}}, s.failed
}

// newPage returns a page of the sample.
func newPage(t testing.TB, s *sample) (*Page, http.Handler) {
	t.Helper()
	p := &Page{Keys: &Keys{}, Admin: func() pb.AdminServiceServer { return s }}
	return p, served(p)
}

// served serves a page as the listener for operators does.
func served(p *Page) http.Handler {
	mux := http.NewServeMux()
	for path, handler := range p.Handlers() {
		mux.HandleFunc("GET "+path, handler)
	}
	return mux
}

func ask(h http.Handler, path string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodGet, path, nil)
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// secrets are what only a key shows, on the page and in JSON, and lists what it adds
// to the page.
var (
	secrets = []string{"403 BadCertificateEnvironment", "com.example.mail", "relay-3-QWERTYUI"}
	lists   = []string{"fabrikam.com", "contoso.example", "E715D622", "relay-1:8443"}
)

func TestOnlyAKeyShowsMoreThanHealth(t *testing.T) {
	p, h := newPage(t, newSample())
	secret, _ := p.Keys.Create()
	for path, shown := range map[string][]string{"/status": append(lists, secrets...), "/status/json": secrets} {
		for _, header := range [][]string{{"Authorization", "Bearer wrong"}, {"Authorization", "Bearer "}, {"Authorization", "Basic " + secret}} {
			if w := ask(h, path, header...); w.Code != http.StatusForbidden || w.Body.String() != keyEnded+"\n" {
				t.Errorf("GET %s with %v: %d %s", path, header, w.Code, w.Body)
			}
		}
		for _, header := range [][]string{nil, {"Cookie", cookie + "=wrong"}} {
			body := ask(h, path, header...).Body.String()
			for _, s := range append(lists, secrets...) {
				if strings.Contains(body, s) {
					t.Errorf("GET %s with %v shows %s", path, header, s)
				}
			}
			if !strings.Contains(body, "1.2.3") || !strings.Contains(body, "mail-sandbox") {
				t.Errorf("GET %s shows no health: %s", path, body)
			}
		}
		for _, header := range [][]string{{"Authorization", "Bearer " + secret}, {"Cookie", cookie + "=" + secret}} {
			body := ask(h, path, header...).Body.String()
			for _, s := range shown {
				if !strings.Contains(body, s) {
					t.Errorf("GET %s with a key lacks %s", path, s)
				}
			}
		}
	}
}

// TestEveryFieldIsForEverybodyOrNot has somebody decide it for fields to come.
func TestEveryFieldIsForEverybodyOrNot(t *testing.T) {
	s := &pb.GetStatusResponse{}
	fill(s.ProtoReflect())
	redact(s)
	if s.GetRegistryError() == "x" {
		t.Error("everybody is told what the registry says")
	}
	got := slices.Sorted(maps.Keys(fields(s.ProtoReflect(), "")))
	want := strings.Fields(`
		apps.breaker_open_since apps.certificate_expires_at apps.connections apps.credential apps.name apps.provider_token_age
		apps.pushes_in_flight apps.quarantined apps.refused_since apps.state apps.streams_granted
		certificates.expires_at certificates.listener credentials devices devices_queued devices_waiting
		ledger.accepted ledger.outcomes.count ledger.outcomes.outcome ledger.pending
		mailboxes not_ready_reason organizations ready registry_error started_at streams subscribed_mailboxes subscriptions version`)
	if !slices.Equal(got, want) {
		t.Errorf("everybody is shown\n%q, want\n%q", got, want)
	}
}

// fill sets every field of a message.
func fill(m protoreflect.Message) {
	all := m.Descriptor().Fields()
	for i := range all.Len() {
		switch f := all.Get(i); {
		case f.IsList():
			fill(m.Mutable(f).List().AppendMutable().Message())
		case f.Message() != nil:
			fill(m.Mutable(f).Message())
		default:
			m.Set(f, map[protoreflect.Kind]protoreflect.Value{
				protoreflect.StringKind: protoreflect.ValueOfString("x"), protoreflect.BoolKind: protoreflect.ValueOfBool(true),
				protoreflect.EnumKind: protoreflect.ValueOfEnum(1), protoreflect.Uint32Kind: protoreflect.ValueOfUint32(1), protoreflect.Uint64Kind: protoreflect.ValueOfUint64(1),
				protoreflect.Int32Kind: protoreflect.ValueOfInt32(1), protoreflect.Int64Kind: protoreflect.ValueOfInt64(1),
			}[f.Kind()])
		}
	}
}

// fields are the names of those that are set.
func fields(m protoreflect.Message, prefix string) map[string]bool {
	set := map[string]bool{}
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		name := prefix + string(f.Name())
		switch {
		case f.IsList():
			maps.Copy(set, fields(v.List().Get(0).Message(), name+"."))
		case f.Message() != nil && f.Message().ParentFile().Package() == m.Descriptor().ParentFile().Package():
			maps.Copy(set, fields(v.Message(), name+"."))
		default:
			set[name] = true
		}
		return true
	})
	return set
}

func TestKeyMovesFromTheAddressIntoACookie(t *testing.T) {
	p, h := newPage(t, newSample())
	if w := ask(h, "/status/json?key=any"); w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), "Authorization: Bearer KEY") {
		t.Errorf("a script's key in the address: %d %s", w.Code, w.Body)
	}
	if w := ask(h, "/status?key=wrong"); w.Code != http.StatusForbidden {
		t.Errorf("a wrong key: %d, want 403", w.Code)
	}
	secret, _ := p.Keys.Create()
	w := ask(h, "/status?key="+secret)
	c := w.Result().Cookies()
	if w.Code != http.StatusSeeOther || w.Header().Get("Location") != "/status" || len(c) != 1 || !c[0].HttpOnly || c[0].SameSite != http.SameSiteStrictMode {
		t.Fatalf("a key: %d to %q with cookies %v", w.Code, w.Header().Get("Location"), c)
	}
	if body := ask(h, "/status", "Cookie", c[0].Name+"="+c[0].Value).Body.String(); !strings.Contains(body, "fabrikam.com") {
		t.Error("the cookie does not open the page")
	}
}

func TestKeysEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var k Keys
		first, _ := k.Create()
		time.Sleep(keyLifetime - time.Millisecond)
		if !k.opens(first) {
			t.Error("a key ended before its time")
		}
		time.Sleep(time.Millisecond)
		if k.opens(first) {
			t.Error("a key lived beyond its time")
		}
		second, _ := k.Create()
		for range mostKeys - 1 {
			k.Create()
		}
		if !k.opens(second) {
			t.Error("a key went before it had to")
		}
		k.Create()
		if k.opens(second) || k.opens("") {
			t.Errorf("there are more than %d keys", mostKeys)
		}
	})
}

func TestThePageCountsEvents(t *testing.T) {
	_, h := newPage(t, newSample())
	body := ask(h, "/status").Body.String()
	for _, want := range []string{"Events accepted</dt><dd>98\u202f765<", `superseded</th><td>8` + "\u202f" + `748<`} {
		if !strings.Contains(body, want) {
			t.Errorf("the page lacks %s: %s", want, body)
		}
	}
}

func TestJudgement(t *testing.T) {
	s := newSample()
	_, h := newPage(t, s)
	var got struct {
		State    State
		Troubles []string
		Status   json.RawMessage
	}
	if err := json.Unmarshal(ask(h, "/status/json").Body.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	if want := "Apple refuses the key, certificate or topic of mail-sandbox.|The certificate of mail-sandbox ends in 5 days."; got.State != Troubled || strings.Join(got.Troubles, "|") != want {
		t.Errorf("%s: %q, want %q", got.State, got.Troubles, want)
	}
	if err := protojson.Unmarshal(got.Status, &pb.GetStatusResponse{}); err != nil {
		t.Errorf("the status is not the contract's: %v", err)
	}
	s.status.NotReadyReason = "registry unavailable"
	if body := ask(h, "/status").Body.String(); !strings.Contains(body, "Not working") || !strings.Contains(body, "It takes no work: registry unavailable.") {
		t.Errorf("a relay that takes no work: %s", body)
	}
}

// TestARegistryThatFails is told of to everybody, in its own words to who holds a key.
func TestARegistryThatFails(t *testing.T) {
	s := newSample()
	p, h := newPage(t, s)
	secret, _ := p.Keys.Create()
	key := []string{"Authorization", "Bearer " + secret}
	s.failed = errors.New("connect to db1")
	if body := ask(h, "/status", key...).Body.String(); !strings.Contains(body, "are missing: connect to db1") || strings.Contains(body, "None is enrolled") {
		t.Errorf("lists that fail: %s", body)
	}
	s.status.RegistryError = "no route to db1"
	if body := ask(h, "/status", key...).Body.String(); !strings.Contains(body, "no route to db1") || strings.Contains(body, "None is enrolled") {
		t.Errorf("a registry that fails: %s", body)
	}
	if body := ask(h, "/status").Body.String(); !strings.Contains(body, "the registry does not answer") || strings.Contains(body, "db1") {
		t.Errorf("a registry that fails, for everybody: %s", body)
	}
}

// broken can't say how the relay is.
type broken struct {
	pb.UnimplementedAdminServiceServer
}

func TestAStatusThatFails(t *testing.T) {
	p := &Page{Keys: &Keys{}, Admin: func() pb.AdminServiceServer { return broken{} }}
	mux := served(p)
	secret, _ := p.Keys.Create()
	for _, path := range []string{"/status", "/status/json"} {
		if w := ask(mux, path); w.Code != http.StatusInternalServerError || strings.Contains(w.Body.String(), "not implemented") {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
		if w := ask(mux, path, "Authorization", "Bearer "+secret); w.Code != http.StatusInternalServerError || !strings.Contains(w.Body.String(), "not implemented") {
			t.Errorf("%s with a key: %d %s", path, w.Code, w.Body)
		}
	}
}

func TestPageWhileTheRelayStarts(t *testing.T) {
	p, h := newPage(t, &sample{status: &pb.GetStatusResponse{Version: "1.2.3", StartedAt: at(time.Now()), NotReadyReason: "starting"}})
	secret, _ := p.Keys.Create()
	for _, header := range [][]string{nil, {"Authorization", "Bearer " + secret}} {
		if w := ask(h, "/status", header...); w.Code != http.StatusOK || !strings.Contains(w.Body.String(), "It takes no work: starting.") || strings.Contains(w.Body.String(), "fabrikam.com") {
			t.Errorf("%d %s", w.Code, w.Body)
		}
	}
}

func TestWords(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second: "no time", 65 * time.Microsecond: "65 µs", 1500 * time.Microsecond: "1.5 ms", 250 * time.Millisecond: "250 ms",
		time.Second: "1 s", 1500 * time.Millisecond: "1.5 s", 90 * time.Second: "1 minute", 119 * time.Minute: "119 minutes",
		3 * time.Hour: "3 hours", 49 * time.Hour: "2 days",
	} {
		if got := span(d); got != want {
			t.Errorf("span(%d) = %q, want %q", d, got, want)
		}
	}
	for n, want := range map[uint64]string{0: "0", 999: "999", 1000: "1\u202f000", 1234567: "1\u202f234\u202f567"} {
		if got := group(n); got != want {
			t.Errorf("group(%d) = %q, want %q", n, got, want)
		}
	}
}
