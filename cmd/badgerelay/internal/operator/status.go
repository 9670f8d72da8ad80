package operator

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"badgerelay/cmd/internal/command"
	pb "badgerelay/proto/badgerelay/v1"
)

func (t *Terminal) app() *cobra.Command {
	c := &cobra.Command{Use: "app", Short: "see the configured apps and their connections to Apple"}
	c.AddCommand(&cobra.Command{
		Use: "list", Short: "list the configured apps",
		RunE: t.run(func(ctx context.Context, admin pb.AdminServiceClient, _ []string) error {
			r, err := admin.ListApps(ctx, &pb.ListAppsRequest{})
			return t.Answer(r, err, "", func() { t.showApps(r.GetApps()) })
		}),
	})
	return c
}

func (t *Terminal) showApps(apps []*pb.App) {
	var rows [][]string
	for _, a := range apps {
		environment := strings.ToLower(strings.TrimPrefix(a.GetEnvironment().String(), "ENVIRONMENT_"))
		rows = append(rows, []string{a.GetName(), a.GetTopic(), environment, a.GetCredential(), a.GetEngine(), appState(a),
			fmt.Sprint(a.GetConnections()), fmt.Sprintf("%d/%d", a.GetPushesInFlight(), a.GetStreamsGranted()), fmt.Sprint(a.GetQuarantined()), credentialAge(a), cmp.Or(a.GetLastError(), "-")})
	}
	t.Table("APP TOPIC ENVIRONMENT CREDENTIAL ENGINE STATE CONNECTIONS IN_FLIGHT QUARANTINED AGE_OR_END LAST_ERROR", rows)
}

func appState(a *pb.App) string {
	if a.GetBreakerOpenSince() != nil {
		return a.GetState() + ", breaker open"
	}
	return a.GetState()
}

func credentialAge(a *pb.App) string {
	if a.GetCertificateExpiresAt() != nil {
		return when(a.GetCertificateExpiresAt())
	}
	if a.GetProviderTokenAge() != nil {
		return a.GetProviderTokenAge().AsDuration().Round(time.Second).String()
	}
	return "-"
}

func (t *Terminal) status() *cobra.Command {
	var page, all bool
	c := &cobra.Command{
		Use: "status", Short: "show the relay's status: ready, streams, the ledger of events, apps",
		Long: `Shows the relay's status; with --all that of every relay that shares its registry,
whichever of them is asked. Each relay reports every 5 seconds. One that has not
been heard of for 20 seconds is silent, one that has ended in good order stopped;
both are listed for a day, or until a relay starts in their place.`,
		RunE: t.run(func(ctx context.Context, admin pb.AdminServiceClient, _ []string) error {
			if page {
				return t.statusPage(ctx, admin)
			}
			if all {
				return t.allRelays(ctx, admin)
			}
			r, err := admin.GetStatus(ctx, &pb.GetStatusRequest{})
			return t.Answer(r, err, "", func() { t.showStatus(r) })
		}),
	}
	c.Flags().BoolVar(&page, "page", false, "print an address of the status page that shows everything, for an hour")
	c.Flags().BoolVar(&all, "all", false, "of all relays that share the registry")
	command.AtMostOne(c, "page", "all")
	return c
}

// statusPage prints the address of the page with a fresh key. The relay names
// the address it listens on; who comes another way puts theirs before /status.
func (t *Terminal) statusPage(ctx context.Context, admin pb.AdminServiceClient) error {
	r, err := admin.CreateStatusKey(ctx, &pb.CreateStatusKeyRequest{})
	return t.Answer(r, err, "", func() {
		t.Say("%s?key=%s", r.GetUrl(), r.GetKey())
		t.Say("It opens the page until %s. Keep it to yourself.", when(r.GetExpiresAt()))
	})
}

func (t *Terminal) showStatus(r *pb.GetStatusResponse) {
	ready := "yes"
	if !r.GetReady() {
		ready = "no: " + r.GetNotReadyReason()
	}
	fields := []command.Field{
		{"Version", r.GetVersion()},
		{"Instance", r.GetInstance()},
		{"Started", when(r.GetStartedAt())},
		{"Ready", ready},
	}
	fields = append(fields, registryFields(r)...)
	fields = append(fields,
		command.Field{"Streams", fmt.Sprint(r.GetStreams())},
		command.Field{"Mailboxes in memory", fmt.Sprint(r.GetMailboxes())},
		command.Field{"Devices in memory", fmt.Sprint(r.GetDevices())},
		command.Field{"Devices waiting", fmt.Sprintf("%d for a stream, %d for a retry", r.GetDevicesQueued(), r.GetDevicesWaiting())},
		command.Field{"Events accepted", fmt.Sprint(r.GetLedger().GetAccepted())},
		command.Field{"  pending", fmt.Sprint(r.GetLedger().GetPending())})
	for _, o := range r.GetLedger().GetOutcomes() {
		fields = append(fields, command.Field{"  " + o.GetOutcome(), fmt.Sprint(o.GetCount())})
	}
	t.List(fields...)
	if len(r.GetApps()) > 0 {
		t.Say("")
		t.showApps(r.GetApps())
	}
	if len(r.GetCertificates()) > 0 {
		t.Say("")
		t.showCertificates(r.GetCertificates())
	}
}

func (t *Terminal) showCertificates(certificates []*pb.ListenerCertificate) {
	var rows [][]string
	for _, c := range certificates {
		rows = append(rows, []string{c.GetListener(), when(c.GetExpiresAt())})
	}
	t.Table("LISTENER CERTIFICATE_END", rows)
}

func registryFields(r *pb.GetStatusResponse) []command.Field {
	if why := r.GetRegistryError(); why != "" {
		return []command.Field{{"Registry", "not known what it holds: " + why}}
	}
	return []command.Field{
		{"Organizations", fmt.Sprint(r.GetOrganizations())},
		{"Credentials", fmt.Sprint(r.GetCredentials())},
		{"Mailboxes", fmt.Sprint(r.GetSubscribedMailboxes())},
		{"Subscriptions", fmt.Sprint(r.GetSubscriptions())},
	}
}

func (t *Terminal) probe() *cobra.Command {
	var app string
	c := &cobra.Command{
		Use: "probe", Short: "test the relay's way to Apple, stage by stage",
		Long: `Tests the registry and, for each app, the credentials and the connection: a
push to an impossible device token must come back as BadDeviceToken, which
proves everything but the device. Prints each stage, then the result.
` + command.ProbeHelp + `

Exit code 0: every stage worked; 1: one did not.`,
		RunE: t.within(2*time.Minute, func(ctx context.Context, admin pb.AdminServiceClient, _ []string) error {
			r, err := admin.Probe(ctx, &pb.ProbeRequest{App: app})
			if err != nil {
				return err
			}
			return t.showProbe(r)
		}),
	}
	c.Flags().StringVar(&app, "app", "", "only this `app`")
	command.FlagCompletion(c, "app", t.apps())
	return c
}

func (t *Terminal) showProbe(r *pb.ProbeResponse) error {
	result := &command.Probe{}
	for _, s := range r.GetStages() {
		stage := command.Stage{Name: s.GetName(), ResultType: command.Succeeded, Detail: s.GetDetail(), Seconds: s.GetDuration().AsDuration().Seconds()}
		if !s.GetOk() {
			stage.ResultType = command.Broken
		}
		t.AddStage(result, stage, s.GetDetail())
	}
	return t.Finish(result)
}

// allRelays prints how every relay is that shares the registry.
func (t *Terminal) allRelays(ctx context.Context, admin pb.AdminServiceClient) error {
	r, err := admin.ListRelays(ctx, &pb.ListRelaysRequest{})
	return t.Answer(r, err, "", func() { t.showRelays(r) })
}

func (t *Terminal) showRelays(r *pb.ListRelaysResponse) {
	var rows [][]string
	for _, one := range r.GetRelays() {
		s := one.GetStatus()
		rows = append(rows, []string{one.GetName(), stateWord(one), cmp.Or(s.GetVersion(), "-"), when(s.GetStartedAt()), heard(one),
			fmt.Sprint(s.GetStreams()), fmt.Sprint(s.GetMailboxes()), fmt.Sprint(s.GetDevices()),
			fmt.Sprint(s.GetLedger().GetAccepted()), fmt.Sprint(s.GetLedger().GetPending()), appStates(s.GetApps())})
	}
	t.Table("RELAY STATE VERSION STARTED HEARD STREAMS MAILBOXES DEVICES ACCEPTED PENDING APPS", rows)
	for _, one := range r.GetRelays() {
		if why := one.GetStatus().GetNotReadyReason(); why != "" && one.GetState() == pb.RelayState_RELAY_STATE_NOT_READY {
			t.Say("%s is not ready: %s", one.GetName(), why)
		}
	}
	if why := r.GetRegistryError(); why != "" {
		t.Say("There may be other relays: %s", why)
	}
}

// stateWord is ready, not_ready, stopped or silent.
func stateWord(r *pb.Relay) string {
	return strings.ToLower(strings.TrimPrefix(r.GetState().String(), "RELAY_STATE_"))
}

func heard(r *pb.Relay) string {
	if r.GetHeard() == nil {
		return "now"
	}
	return r.GetHeard().AsDuration().Round(time.Second).String() + " ago"
}

// appStates is one word where all apps are in the same state.
func appStates(apps []*pb.App) string {
	var each []string
	same := true
	for _, a := range apps {
		each = append(each, a.GetName()+" "+appState(a))
		same = same && appState(a) == appState(apps[0])
	}
	if len(apps) > 0 && same {
		return appState(apps[0])
	}
	return cmp.Or(strings.Join(each, ", "), "-")
}
