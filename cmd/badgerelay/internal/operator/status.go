package operator

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	pb "badgerelay/proto/badgerelay/v1"
)

func (t *Terminal) app() *cobra.Command {
	c := &cobra.Command{Use: "app", Short: "see the configured apps and their connections to Apple"}
	c.AddCommand(&cobra.Command{
		Use: "list", Short: "list the configured apps", Args: cobra.NoArgs,
		RunE: t.run(func(ctx context.Context, admin pb.AdminServiceClient, _ []string) error {
			r, err := admin.ListApps(ctx, &pb.ListAppsRequest{})
			if err != nil {
				return err
			}
			return t.print(r, func() { t.showApps(r.GetApps()) })
		}),
	})
	return c
}

func (t *Terminal) showApps(apps []*pb.App) {
	var rows [][]string
	for _, a := range apps {
		environment := strings.ToLower(strings.TrimPrefix(a.GetEnvironment().String(), "ENVIRONMENT_"))
		rows = append(rows, []string{a.GetName(), a.GetTopic(), environment, a.GetCredential(), a.GetEngine(), a.GetState(),
			fmt.Sprint(a.GetConnections()), fmt.Sprintf("%d/%d", a.GetPushesInFlight(), a.GetStreamsGranted()), fmt.Sprint(a.GetQuarantined()), credentialAge(a), orDash(a.GetLastError())})
	}
	t.table("APP TOPIC ENVIRONMENT CREDENTIAL ENGINE STATE CONNECTIONS IN_FLIGHT QUARANTINED AGE_OR_END LAST_ERROR", rows)
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
		Use: "status", Short: "say how the relay is: ready, streams, the ledger of events, apps", Args: cobra.NoArgs,
		Long: `Says how the relay is. With --all, how every relay is that shares its registry,
whichever of them is asked: each says so every 5 seconds. One that has not been
heard of for 20 seconds is silent, one that has ended in good order stopped;
both are listed for a day, or until a relay starts in their place.`,
		RunE: t.run(func(ctx context.Context, admin pb.AdminServiceClient, _ []string) error {
			if page && all {
				return usage("--page is of one relay; leave --all out")
			}
			if page {
				return t.statusPage(ctx, admin)
			}
			if all {
				return t.allRelays(ctx, admin)
			}
			r, err := admin.GetStatus(ctx, &pb.GetStatusRequest{})
			if err != nil {
				return err
			}
			return t.print(r, func() { t.showStatus(r) })
		}),
	}
	c.Flags().BoolVar(&page, "page", false, "print an address of the status page that shows everything, for an hour")
	c.Flags().BoolVar(&all, "all", false, "of all relays that share the registry")
	return c
}

// statusPage prints the address of the page with a fresh key. The relay names
// the address it listens on; who comes another way puts theirs before /status.
func (t *Terminal) statusPage(ctx context.Context, admin pb.AdminServiceClient) error {
	r, err := admin.CreateStatusKey(ctx, &pb.CreateStatusKeyRequest{})
	if err != nil {
		return err
	}
	return t.print(r, func() {
		t.say("%s?key=%s", r.GetUrl(), r.GetKey())
		t.say("It opens the page until %s. Keep it to yourself.", when(r.GetExpiresAt()))
	})
}

func (t *Terminal) showStatus(r *pb.GetStatusResponse) {
	ready := "yes"
	if !r.GetReady() {
		ready = "no: " + r.GetNotReadyReason()
	}
	fields := [][2]string{
		{"Version", r.GetVersion()},
		{"Instance", r.GetInstance()},
		{"Started", when(r.GetStartedAt())},
		{"Ready", ready},
		{"Organizations", unlessFailed(r, r.GetOrganizations())},
		{"Subscriptions", unlessFailed(r, r.GetSubscriptions())},
		{"Streams", fmt.Sprint(r.GetStreams())},
		{"Mailboxes in memory", fmt.Sprint(r.GetMailboxes())},
		{"Devices in memory", fmt.Sprint(r.GetDevices())},
		{"Events accepted", fmt.Sprint(r.GetLedger().GetAccepted())},
		{"  pending", fmt.Sprint(r.GetLedger().GetPending())},
	}
	for _, o := range r.GetLedger().GetOutcomes() {
		fields = append(fields, [2]string{"  " + o.GetOutcome(), fmt.Sprint(o.GetCount())})
	}
	t.list(fields...)
	if len(r.GetApps()) > 0 {
		t.say("")
		t.showApps(r.GetApps())
	}
}

// unlessFailed prints a count of the registry's.
func unlessFailed(r *pb.GetStatusResponse, n uint64) string {
	if r.GetRegistryFailed() {
		return "not known: the registry does not answer"
	}
	return fmt.Sprint(n)
}

// errProbe is what a probe with a failed stage ends in; its result is printed.
var errProbe = errors.New("the probe failed")

func (t *Terminal) probe() *cobra.Command {
	var app string
	c := &cobra.Command{
		Use: "probe", Short: "test the relay's way to Apple, stage by stage", Args: cobra.NoArgs,
		Long: `Tests the registry and, for each app, the credentials and the connection: a
push to an impossible device token must come back as BadDeviceToken, which
proves everything but the device. Prints each stage, then ResultType, Error and
Exception. Exit code 0: every stage worked; 1: one did not.`,
		RunE: t.within(2*time.Minute, func(ctx context.Context, admin pb.AdminServiceClient, _ []string) error {
			r, err := admin.Probe(ctx, &pb.ProbeRequest{App: app})
			if err != nil {
				return err
			}
			return t.showProbe(r)
		}),
	}
	c.Flags().StringVar(&app, "app", "", "only this app")
	return c
}

// probeResult is what is printed at the end of a probe: the three lines of
// Exchange's Invoke-MonitoringProbe (seed, test 2).
type probeResult struct {
	ResultType string `json:"result_type"` // Succeeded or Failed
	Error      string `json:"error"`       // the first stage that failed
	Exception  string `json:"exception"`   // what came back there
	Stages     []any  `json:"stages"`
}

func (t *Terminal) showProbe(r *pb.ProbeResponse) error {
	result := probeResult{ResultType: "Succeeded"}
	for _, s := range r.GetStages() {
		if !s.GetOk() && result.Error == "" {
			result.ResultType, result.Error, result.Exception = "Failed", s.GetName(), s.GetDetail()
		}
		result.Stages = append(result.Stages, map[string]any{
			"name": s.GetName(), "ok": s.GetOk(), "detail": s.GetDetail(), "seconds": s.GetDuration().AsDuration().Seconds(),
		})
	}
	if t.json() {
		if err := t.value(result); err != nil {
			return err
		}
	} else {
		t.showStages(r.GetStages(), result)
	}
	if result.Error != "" {
		return errProbe
	}
	return nil
}

func (t *Terminal) showStages(stages []*pb.ProbeStage, result probeResult) {
	for _, s := range stages {
		word := "ok    "
		if !s.GetOk() {
			word = "FAILED"
		}
		t.say("%s  %-28s %8s  %s", word, s.GetName(), s.GetDuration().AsDuration().Round(100*time.Microsecond), s.GetDetail())
	}
	t.say("")
	t.list([2]string{"ResultType", result.ResultType}, [2]string{"Error", result.Error}, [2]string{"Exception", result.Exception})
}
