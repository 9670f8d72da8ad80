package admin

import (
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"badgerelay/apns"
	"badgerelay/auth/authtest"
	pb "badgerelay/proto/badgerelay/v1"
	"badgerelay/relay"
	"badgerelay/relay/ingest"
	"badgerelay/relay/internal/service"
	"badgerelay/relay/registry"
)

func TestAdminOrganizations(t *testing.T) {
	w := newWorld(t)
	admin, ctx := w.admin(), t.Context()
	added, err := admin.AddOrganization(ctx, &pb.AddOrganizationRequest{
		Name: "Fabrikam.COM", Limits: &pb.OrganizationLimits{Apps: []string{testApp}, MaxStreams: 3}, MetadataUrl: "https://fabrikam.com/metadata",
	})
	if err != nil {
		t.Fatal(err)
	}
	o := added.GetOrganization()
	if o.GetName() != "fabrikam.com" || !o.GetEnabled() || o.GetLimits().GetMaxStreams() != 3 || o.GetCreatedAt() == nil || o.GetMetadataUrl() == "" {
		t.Errorf("got %v", o)
	}
	_, err = admin.AddOrganization(ctx, &pb.AddOrganizationRequest{Name: "fabrikam.com"})
	wantRefusal(t, err, codes.AlreadyExists, "ORGANIZATION_EXISTS")
	_, err = admin.AddOrganization(ctx, &pb.AddOrganizationRequest{Name: "no domain"})
	wantField(t, err, "name")
	_, err = admin.AddOrganization(ctx, &pb.AddOrganizationRequest{Name: "contoso.com", Limits: &pb.OrganizationLimits{Apps: []string{"typo"}}})
	wantRefusal(t, err, codes.InvalidArgument, "APP_UNKNOWN")
	_, err = admin.AddOrganization(ctx, &pb.AddOrganizationRequest{Name: "contoso.com", MetadataUrl: "http://contoso.com"})
	wantField(t, err, "metadata_url")

	off := false
	updated, err := admin.UpdateOrganization(ctx, &pb.UpdateOrganizationRequest{Name: "FABRIKAM.com", Enabled: &off})
	if err != nil || updated.GetOrganization().GetEnabled() || updated.GetOrganization().GetLimits().GetMaxStreams() != 3 || updated.GetOrganization().GetMetadataUrl() == "" {
		t.Errorf("got %v, %v, want it disabled and nothing else changed", updated, err)
	}
	empty := ""
	updated, err = admin.UpdateOrganization(ctx, &pb.UpdateOrganizationRequest{Name: "fabrikam.com", MetadataUrl: &empty, Limits: &pb.OrganizationLimits{}})
	if err != nil || updated.GetOrganization().GetEnabled() || updated.GetOrganization().GetLimits().GetMaxStreams() != 0 || updated.GetOrganization().GetMetadataUrl() != "" {
		t.Errorf("got %v, %v, want limits and address gone, and it still disabled", updated, err)
	}
	if _, err := admin.AddOrganization(ctx, &pb.AddOrganizationRequest{Name: "contoso.com"}); err != nil {
		t.Fatal(err)
	}
	first, err := admin.ListOrganizations(ctx, &pb.ListOrganizationsRequest{PageSize: 1})
	if err != nil || len(first.GetOrganizations()) != 1 || first.GetOrganizations()[0].GetName() != "contoso.com" {
		t.Fatalf("got %v, %v", first, err)
	}
	second, err := admin.ListOrganizations(ctx, &pb.ListOrganizationsRequest{PageSize: 1, PageToken: first.GetNextPageToken()})
	if err != nil || len(second.GetOrganizations()) != 1 || second.GetOrganizations()[0].GetName() != "fabrikam.com" {
		t.Fatalf("got %v, %v", second, err)
	}
	_, err = admin.RemoveOrganization(ctx, &pb.RemoveOrganizationRequest{Name: "Contoso.com"})
	wantRefusal(t, err, codes.FailedPrecondition, "ORGANIZATION_ENABLED")
	if _, err := admin.GetOrganization(ctx, &pb.GetOrganizationRequest{Name: "contoso.com"}); err != nil {
		t.Errorf("an enabled organization was removed: %v", err)
	}
	if _, err := admin.RemoveOrganization(ctx, &pb.RemoveOrganizationRequest{Name: "fabrikam.com"}); err != nil {
		t.Error(err)
	}
	_, err = admin.GetOrganization(ctx, &pb.GetOrganizationRequest{Name: "fabrikam.com"})
	wantRefusal(t, err, codes.NotFound, "ORGANIZATION_NOT_FOUND")
	_, err = admin.RemoveOrganization(ctx, &pb.RemoveOrganizationRequest{Name: "fabrikam.com"})
	wantRefusal(t, err, codes.NotFound, "ORGANIZATION_NOT_FOUND")
	_, err = admin.AddOrganization(ctx, &pb.AddOrganizationRequest{Name: "fabrikam.com"})
	wantRefusal(t, err, codes.AlreadyExists, "ORGANIZATION_REMOVED")
	removed, err := admin.ListOrganizations(ctx, &pb.ListOrganizationsRequest{Removed: true})
	if err != nil || len(removed.GetOrganizations()) != 1 || removed.GetOrganizations()[0].GetRemovedAt() == nil {
		t.Errorf("got %v, %v, want fabrikam.com and since when it is removed", removed, err)
	}
	restored, err := admin.RestoreOrganization(ctx, &pb.RestoreOrganizationRequest{Name: "fabrikam.com"})
	if err != nil || restored.GetOrganization().GetEnabled() || restored.GetOrganization().GetRemovedAt() != nil {
		t.Errorf("got %v, %v, want it back, disabled", restored, err)
	}
	_, err = admin.PurgeOrganization(ctx, &pb.PurgeOrganizationRequest{Name: "fabrikam.com"})
	wantRefusal(t, err, codes.FailedPrecondition, "ORGANIZATION_EXISTS") // it is not removed
	_, err = admin.RemoveOrganization(ctx, &pb.RemoveOrganizationRequest{Name: "no domain"})
	wantField(t, err, "name")
	_, err = admin.GetOrganization(ctx, &pb.GetOrganizationRequest{})
	wantField(t, err, "name")
}

func TestAdminCredentials(t *testing.T) {
	w := newWorld(t)
	admin, ctx, certificate := w.admin(), t.Context(), testKey("test").Certificate
	for _, name := range []string{"fabrikam.com", "contoso.com"} {
		if _, err := admin.AddOrganization(ctx, &pb.AddOrganizationRequest{Name: name}); err != nil {
			t.Fatal(err)
		}
	}
	added, err := admin.AddCredential(ctx, &pb.AddCredentialRequest{
		Organization: "fabrikam.com", Certificate: authtest.CertificatePEM(certificate),
	})
	if err != nil {
		t.Fatal(err)
	}
	c := added.GetCredential()
	if want := fmt.Sprintf("%X", sha1.Sum(certificate.Raw)); c.GetThumbprint() != want {
		t.Errorf("got thumbprint %s, want %s", c.GetThumbprint(), want)
	}
	if want := fmt.Sprintf("%x", sha256.Sum256(certificate.RawSubjectPublicKeyInfo)); c.GetKeySha256() != want {
		t.Errorf("got key %s, want %s", c.GetKeySha256(), want)
	}
	if c.GetType() != "Asymmetric" || c.GetUsage() != "Verify" || c.GetSubject() != "CN=test" || c.GetLastUsedAt() != nil {
		t.Errorf("got %v", c)
	}
	_, err = admin.AddCredential(ctx, &pb.AddCredentialRequest{Organization: "contoso.com", Certificate: certificate.Raw})
	wantRefusal(t, err, codes.AlreadyExists, "CREDENTIAL_EXISTS")
	_, err = admin.AddCredential(ctx, &pb.AddCredentialRequest{Organization: "contoso.com", Certificate: []byte("x")})
	wantField(t, err, "certificate")
	_, err = admin.AddCredential(ctx, &pb.AddCredentialRequest{Organization: "tailspin.com", Certificate: certificate.Raw})
	wantRefusal(t, err, codes.NotFound, "ORGANIZATION_NOT_FOUND")
	_, err = admin.AddCredential(ctx, &pb.AddCredentialRequest{
		Organization: "contoso.com", Certificate: testKey("other").Certificate.Raw, EndAt: timestamppb.New(time.Date(2101, 1, 1, 0, 0, 0, 0, time.UTC)),
	})
	wantField(t, err, "end_at")
	_, err = admin.AddCredential(ctx, &pb.AddCredentialRequest{
		Organization: "contoso.com", Certificate: testKey("other").Certificate.Raw, StartAt: &timestamppb.Timestamp{Nanos: -1},
	})
	wantField(t, err, "start_at")

	_, err = admin.RemoveCredential(ctx, &pb.RemoveCredentialRequest{Organization: "contoso.com", Id: c.GetId()})
	wantRefusal(t, err, codes.NotFound, "CREDENTIAL_NOT_FOUND")
	_, err = admin.RemoveCredential(ctx, &pb.RemoveCredentialRequest{Organization: "contoso.com"})
	wantField(t, err, "id")
	list, err := admin.ListCredentials(ctx, &pb.ListCredentialsRequest{Organization: "fabrikam.com"})
	if err != nil || len(list.GetCredentials()) != 1 || list.GetCredentials()[0].GetId() != c.GetId() {
		t.Errorf("got %v, %v", list, err)
	}
	if _, err := admin.RemoveCredential(ctx, &pb.RemoveCredentialRequest{Organization: "fabrikam.com", Id: c.GetThumbprint()}); err != nil {
		t.Error(err)
	}
}

func TestAdminSubscriptions(t *testing.T) {
	w := newWorld(t)
	w.enrol()
	admin, ctx := w.admin(), t.Context()
	s, err := admin.Subscribe(ctx, &pb.AdminServiceSubscribeRequest{
		Organization: "fabrikam.com", Subscribe: &pb.SubscribeRequest{Mailbox: "ann", App: testApp, DeviceToken: device("a")},
	})
	if err != nil || !s.GetSubscribe().GetCreated() {
		t.Fatalf("got %v, %v", s, err)
	}
	_, err = admin.Subscribe(ctx, &pb.AdminServiceSubscribeRequest{Organization: "fabrikam.com"})
	wantField(t, err, "mailbox")
	_, err = admin.Subscribe(ctx, &pb.AdminServiceSubscribeRequest{Subscribe: &pb.SubscribeRequest{Mailbox: "ann", App: testApp, DeviceToken: device("a")}})
	wantField(t, err, "organization")

	stream, err := admin.ImportSubscriptions(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"fabrikam.com", "Fabrikam.com"} {
		_ = stream.Send(&pb.AdminServiceImportSubscriptionsRequest{Organization: name, Import: &pb.ImportSubscriptionsRequest{
			Subscriptions: []*pb.Subscription{{Mailbox: "bob", App: testApp, DeviceToken: device("b")}},
		}})
	}
	imported, err := stream.CloseAndRecv()
	if err != nil || imported.GetImport().GetCreated() != 1 || imported.GetImport().GetRenewed() != 1 {
		t.Errorf("got %v, %v, want 1 created, 1 renewed", imported, err)
	}
	stream, err = admin.ImportSubscriptions(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"fabrikam.com", "contoso.com"} {
		_ = stream.Send(&pb.AdminServiceImportSubscriptionsRequest{Organization: name})
	}
	_, err = stream.CloseAndRecv()
	wantField(t, err, "organization")

	list, err := admin.ListSubscriptions(ctx, &pb.AdminServiceListSubscriptionsRequest{Organization: "fabrikam.com"})
	if err != nil || len(list.GetList().GetSubscriptions()) != 2 {
		t.Errorf("got %v, %v, want two", list, err)
	}
	unsubscribe := &pb.AdminServiceUnsubscribeRequest{Organization: "fabrikam.com", Unsubscribe: &pb.UnsubscribeRequest{Mailbox: "bob", App: testApp, DeviceToken: device("b")}}
	if _, err := admin.Unsubscribe(ctx, unsubscribe); err != nil {
		t.Error(err)
	}
	_, err = admin.Unsubscribe(ctx, unsubscribe)
	wantRefusal(t, err, codes.NotFound, "SUBSCRIPTION_NOT_FOUND")
}

// hungUp is a registry whose database ends the connection during an import.
type hungUp struct{ ingest.AgentRegistry }

func (hungUp) ImportSubscriptions(context.Context, relay.OrganizationID, []registry.Registration) (registry.ImportResult, error) {
	return registry.ImportResult{}, fmt.Errorf("%w: %w", registry.ErrUnavailable, io.EOF)
}

func TestAdminImportThatFailsIsNoSuccess(t *testing.T) {
	w := newWorld(t, func(c *ingest.Config) { c.Registry = hungUp{c.Registry} })
	w.enrol()
	stream, err := w.admin().ImportSubscriptions(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_ = stream.Send(&pb.AdminServiceImportSubscriptionsRequest{Organization: "fabrikam.com", Import: &pb.ImportSubscriptionsRequest{
		Subscriptions: []*pb.Subscription{{Mailbox: "bob", App: testApp, DeviceToken: device("b")}},
	}})
	answer, err := stream.CloseAndRecv()
	if status.Code(err) != codes.Unavailable {
		t.Errorf("got %v, %v, want %v: nothing was kept", answer, err, codes.Unavailable)
	}
}

func TestAdminStatus(t *testing.T) {
	w := newWorld(t)
	o := w.enrol()
	token, err := apns.ParseDeviceToken(device("a"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.registry.Subscribe(t.Context(), o.ID, registry.Registration{Mailbox: "ann", App: testApp, Device: token}); err != nil {
		t.Fatal(err)
	}
	w.agent(o, &pb.Event{Mailbox: "bob", UnreadCount: 1}, &pb.Event{Mailbox: ""})
	ctx := t.Context()
	admin := w.admin(func(c *Config) {
		c.Status = func(context.Context) *pb.GetStatusResponse {
			return &pb.GetStatusResponse{
				Version: "1.2.3", Instance: "one", NotReadyReason: "no app is up", Apps: []*pb.App{{Name: testApp}},
			}
		}
		c.Probe = func(_ context.Context, app string) ([]ProbeStage, error) {
			return []ProbeStage{{Name: "apns " + app, OK: true, Detail: "BadDeviceToken, as it has to be", Duration: time.Second}}, nil
		}
	})
	s, err := admin.GetStatus(ctx, &pb.GetStatusRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if s.GetVersion() != "1.2.3" || s.GetReady() || s.GetNotReadyReason() == "" || s.GetStreams() != 1 || s.GetOrganizations() != 1 || s.GetCredentials() != 1 ||
		s.GetSubscriptions() != 1 || s.GetSubscribedMailboxes() != 1 || s.GetMailboxes() != 1 {
		t.Errorf("got %v", s)
	}
	sum := s.GetLedger().GetPending()
	for _, c := range s.GetLedger().GetOutcomes() {
		sum += c.GetCount()
	}
	if s.GetLedger().GetAccepted() != 2 || sum != 2 {
		t.Errorf("got %v, want a ledger of 2 that balances", s.GetLedger())
	}
	apps, err := admin.ListApps(ctx, &pb.ListAppsRequest{})
	if err != nil || len(apps.GetApps()) != 1 || apps.GetApps()[0].GetName() != testApp || len(s.GetApps()) != 1 {
		t.Errorf("got %v, %v", apps, err)
	}
	if _, err := admin.CreateStatusKey(ctx, &pb.CreateStatusKeyRequest{}); status.Code(err) != codes.Unimplemented {
		t.Errorf("without a page: %v, want Unimplemented", err)
	}

	probe, err := admin.Probe(ctx, &pb.ProbeRequest{App: testApp})
	if err != nil || len(probe.GetStages()) != 1 || !probe.GetStages()[0].GetOk() || probe.GetStages()[0].GetDuration().AsDuration() != time.Second {
		t.Errorf("got %v, %v", probe, err)
	}
	_, err = admin.Probe(ctx, &pb.ProbeRequest{App: "other"})
	wantRefusal(t, err, codes.InvalidArgument, "APP_UNKNOWN")
	if got, err := admin.GetOrganization(ctx, &pb.GetOrganizationRequest{Name: "fabrikam.com"}); err != nil || got.GetOrganization().GetStreams() != 1 {
		t.Errorf("got %v, %v, want its stream counted", got, err)
	}
	if _, err := w.admin().Probe(ctx, &pb.ProbeRequest{}); status.Code(err) != codes.Unimplemented {
		t.Errorf("without a probe: got %v", err)
	}
}

func TestAnEmptyConfigIsRefused(t *testing.T) {
	if _, err := New(Config{}); err == nil {
		t.Error("it was taken")
	}
}

func TestAdminTLSVerifiesClients(t *testing.T) {
	w := newWorld(t)
	c := Config{Relay: w.relay, Registry: w.registry, Agents: w.agents, TLS: &tls.Config{MinVersion: tls.VersionTLS12}}
	if _, err := New(c); err == nil {
		t.Error("TLS without client certificates was taken")
	}
}

func TestAdminRelays(t *testing.T) {
	w := newWorld(t)
	presence := func(ready bool) []byte {
		data, err := proto.Marshal(&pb.GetStatusResponse{Ready: ready, NotReadyReason: "draining", Streams: 7})
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	all := []registry.Presence{
		{Name: "c", Status: presence(true), Silence: service.SilentAfter},
		{Name: "d", Status: presence(true), Silence: service.SilentAfter + time.Millisecond},
		{Name: "a", Status: presence(false)},
		{Name: "b", Status: []byte("of an unheard-of kind"), Silence: time.Second},
		{Name: "e", Status: presence(true), Silence: time.Hour, Stopped: true},
		{Name: "own", Status: presence(true), Silence: time.Second},
	}
	var failure error
	admin := w.admin(func(c *Config) {
		c.Place = "own"
		c.Others = func(context.Context) ([]registry.Presence, error) { return all, failure }
		c.Status = func(context.Context) *pb.GetStatusResponse {
			return &pb.GetStatusResponse{Instance: "fresh", Ready: true}
		}
	})
	got, err := admin.ListRelays(t.Context(), &pb.ListRelaysRequest{})
	if err != nil || got.GetRegistryError() != "" {
		t.Fatalf("got %v, %v", got, err)
	}
	var said []string
	for _, r := range got.GetRelays() {
		said = append(said, r.GetName()+" "+r.GetState().String()[len("RELAY_STATE_"):])
	}
	if want := []string{"a NOT_READY", "b NOT_READY", "c READY", "d SILENT", "e STOPPED", "own READY"}; !slices.Equal(said, want) {
		t.Errorf("got %q, want %q", said, want)
	}
	if own := got.GetRelays()[5]; own.GetHeard() != nil || own.GetStatus().GetInstance() != "fresh" || got.GetRelays()[2].GetStatus().GetStreams() != 7 {
		t.Errorf("got %v, want this relay as it is now, and what others said", got)
	}
	all, failure = nil, registry.ErrUnavailable
	got, err = admin.ListRelays(t.Context(), &pb.ListRelaysRequest{})
	if err != nil || got.GetRegistryError() != registry.ErrUnavailable.Error() || len(got.GetRelays()) != 1 {
		t.Errorf("got %v, %v, want this relay and that the registry failed", got, err)
	}
	failure = errors.New("no such column")
	_, err = admin.ListRelays(t.Context(), &pb.ListRelaysRequest{})
	wantRefusal(t, err, codes.Internal, "INTERNAL")
}

// brokenRegistry fails to count.
type brokenRegistry struct {
	Registry
	err error
}

func (r brokenRegistry) Counts(context.Context) (registry.Counts, error) {
	return registry.Counts{}, r.err
}

// TestStatusTellsSilenceFromDefects has the registry not answer, and answer with
// an error that is no want of an answer.
func TestStatusTellsSilenceFromDefects(t *testing.T) {
	w := newWorld(t)
	status := func(err error) (*pb.GetStatusResponse, error) {
		return w.admin(func(c *Config) { c.Registry = brokenRegistry{w.registry, err} }).GetStatus(t.Context(), &pb.GetStatusRequest{})
	}
	if got, err := status(registry.ErrUnavailable); err != nil || got.GetRegistryError() != registry.ErrUnavailable.Error() {
		t.Errorf("got %v, %v, want that the registry is unavailable", got, err)
	}
	_, err := status(errors.New("no such column"))
	wantRefusal(t, err, codes.Internal, "INTERNAL")
}

func TestAdminRestore(t *testing.T) {
	w := newWorld(t)
	w.enrol()
	admin, ctx := w.admin(), t.Context()
	restore := func(m *pb.RestoreSubscriptionsRequest) (all []*pb.Restoration, err error) {
		t.Helper()
		stream, err := admin.RestoreSubscriptions(ctx, m)
		for err == nil {
			var part *pb.RestoreSubscriptionsResponse
			if part, err = stream.Recv(); err == nil {
				all = append(all, part.GetRestorations()...)
			}
		}
		if errors.Is(err, io.EOF) {
			err = nil
		}
		return all, err
	}
	o, err := w.registry.GetOrganization(ctx, "fabrikam.com")
	if err != nil {
		t.Fatal(err)
	}
	for _, box := range []string{"a", "b"} {
		token, err := apns.ParseDeviceToken(device(box))
		if err != nil {
			t.Fatal(err)
		}
		r := registry.Registration{Mailbox: box, App: testApp, Device: token}
		if _, err := w.registry.Subscribe(ctx, o.ID, r); err != nil {
			t.Fatal(err)
		}
		removal := relay.Removal{Key: relay.MailboxKey{Organization: o.ID, Mailbox: box}, App: testApp, Device: r.Device, Reason: "Unregistered"}
		if removed, err := w.registry.Remove(ctx, []relay.Removal{removal}); err != nil || !removed[0] {
			t.Fatal(removed, err)
		}
	}
	if _, err := w.registry.UpdateOrganization(ctx, "fabrikam.com", registry.OrganizationUpdate{Limits: &registry.Limits{MaxSubscriptions: 1}}); err != nil {
		t.Fatal(err)
	}
	for field, m := range map[string]*pb.RestoreSubscriptionsRequest{
		"organization":  {Organization: "no name"},
		"mailbox":       {Mailbox: "\xff"},
		"app":           {App: "\xff"},
		"reason":        {Reason: "\xff"},
		"removed_from":  {RemovedFrom: &timestamppb.Timestamp{Nanos: -1}},
		"removed_until": {RemovedFrom: timestamppb.Now(), RemovedUntil: timestamppb.New(time.Now().Add(-time.Hour))},
	} {
		_, err := restore(m)
		wantField(t, err, field)
	}
	_, err = restore(&pb.RestoreSubscriptionsRequest{Organization: "contoso.com"})
	wantRefusal(t, err, codes.NotFound, "ORGANIZATION_NOT_FOUND")
	for _, dry := range []bool{true, false} {
		got, err := restore(&pb.RestoreSubscriptionsRequest{Organization: "Fabrikam.com", Reason: "Unregistered", RemovedUntil: timestamppb.New(time.Now().Add(time.Hour)), ValidateOnly: dry})
		if err != nil || len(got) != 2 || got[0].GetOutcome() != pb.RestorationOutcome_RESTORATION_OUTCOME_RESTORED || got[0].GetSubscription().GetMailbox() != "a" ||
			got[1].GetOutcome() != pb.RestorationOutcome_RESTORATION_OUTCOME_LIMIT_REACHED || !strings.Contains(got[1].GetDetail(), "max_subscriptions") {
			t.Errorf("dry run %t: got %v, %v; want a restored and b beyond the limit", dry, got, err)
		}
	}
	if got, err := restore(&pb.RestoreSubscriptionsRequest{Mailbox: "a"}); err != nil || len(got) != 0 {
		t.Errorf("got %v, %v; want nothing more to restore", got, err)
	}
}
