package main

import (
	"crypto/sha1"
	"fmt"
	"net"
	"os"
	"regexp"
	"testing"
	"time"

	"google.golang.org/grpc/metadata"

	"badgerelay/apns"
	"badgerelay/apns/apnstest"
	"badgerelay/cmd/internal/command"
	pb "badgerelay/proto/badgerelay/v1"
	"badgerelay/relay/agent/diagnosis"
)

// wrong is a relay with an agent, of which one part after the other breaks.
type wrong struct {
	*enrolled
	t      *testing.T // of all
	agent  *agentAt
	config string // without apps
	apps   string
	n      int // devices
}

// startWrong starts a relay that has apps which APNs does not let push.
func startWrong(t *testing.T) *wrong {
	t.Helper()
	f := newFiles(t)
	sim, app := apple(t, f)
	certificate, key := f.pair(t, "relay")
	address := regexp.MustCompile(`address: (\S+)`).FindStringSubmatch(app)[1]
	other := func(name, topic, address, key string) string {
		return fmt.Sprintf("  - {name: %s, topic: %s, address: %q, ca_file: %s, token: {key_file: %s, key_id: KEYID12345, team_id: %s}}\n",
			name, topic, address, f.path("apple.crt"), f.path(key+".p8"), map[string]string{"provider": "TEAM123456", "stolen": "TEAM999999"}[key])
	}
	f.key(t, "stolen.p8", newKey(t))
	w := &wrong{t: t, enrolled: &enrolled{sim: sim, caFile: certificate, files: f}, config: fmt.Sprintf(`
listen:
  address: 127.0.0.1:0
  tls: {certificate_file: %s, key_file: %s}
auth: {authorities: [localhost]}
relay: {coalescing_window: 1s}
`, certificate, key)}
	w.apps = app + other("unproven", "com.example.mail.unproven", address, "stolen") + other("mistyped", "com.example.mial", address, "provider") +
		other("cut-off", "com.example.mail.cut", "127.0.0.1:1", "provider")
	w.start(w.apps + other("sandboxed", "com.example.mail.sandboxed", address, "provider"))
	sim.AddTopic("com.example.mail.unproven")
	sim.AddTopic("com.example.mail.sandboxed")
	w.enrol(t, f)
	w.agent = w.enrolled.agent(t)
	return w
}

// start starts the relay, again after stop.
func (w *wrong) start(apps string) {
	w.t.Helper()
	w.served = serve(w.t, w.files.base(w.t, w.config+apps))
	_, port, err := net.SplitHostPort(w.Agents)
	if err != nil {
		w.t.Fatal(err)
	}
	w.address = net.JoinHostPort("localhost", port)
}

// put puts a new device of an app on a mailbox.
func (w *wrong) put(t *testing.T, mailbox, app string) apns.DeviceToken {
	t.Helper()
	w.n++
	d := numberedDevice(t, w.n)
	w.putAgain(t, mailbox, app, d)
	return d
}

// putAgain puts a device on one more; flags are more of 'subscription add'.
func (w *wrong) putAgain(t *testing.T, mailbox, app string, d apns.DeviceToken, flags ...string) {
	t.Helper()
	want(t, command.Done, "", append([]string{"subscription", "add", enrolledOrganization, "--mailbox", mailbox, "--app", app,
		"--device-token", d.Hex(), "--admin", w.Admin}, flags...)...)
}

// device puts a device on a mailbox that APNs knows.
func (w *wrong) device(t *testing.T, mailbox string) apns.DeviceToken {
	t.Helper()
	d := w.put(t, mailbox, "mail")
	w.sim.RegisterDevice(d, "com.example.mail", apnstest.Production, apnstest.Meta{Mailbox: mailbox})
	return d
}

// tell has the agent tell a count, and does not wait for what becomes of it.
func (w *wrong) tell(t *testing.T, mailbox string, unread uint32) {
	t.Helper()
	w.agent.tell(t, mailbox, unread)
}

func (w *wrong) admin(t *testing.T, args ...string) {
	t.Helper()
	want(t, command.Done, "", append(args, "--admin", w.Admin)...)
}

// answers has APNs answer the next push to a device.
func (w *wrong) answers(d apns.DeviceToken, status int, reason apns.Reason) {
	w.sim.NextFor(d, apnstest.Answer{Status: status, Reason: reason, RetryAfter: time.Hour})
}

// wrongBadges are ways in which a badge is late or wrong, each with what 'mailbox show'
// says of it. They are tried on one relay, one after the other: those at the end break
// all of it.
var wrongBadges = []struct {
	mailbox string
	code    diagnosis.Code
	says    string
	happens func(t *testing.T, w *wrong)
}{
	{"ann@fabrikam.com", diagnosis.Right, "3 on both devices since", func(t *testing.T, w *wrong) {
		w.device(t, "ann@fabrikam.com")
		w.device(t, "ann@fabrikam.com")
		w.tell(t, "ann@fabrikam.com", 3)
	}},
	{"anm@fabrikam.com", diagnosis.NoSubscription, "did you mean ann@fabrikam.com?", nil},
	{"Ann@Fabrikam.com", diagnosis.SpelledOtherwise, "on ann@fabrikam.com", nil},
	{"nobody", diagnosis.NoSubscription, "Nobody is subscribed", func(t *testing.T, w *wrong) { w.tell(t, "nobody", 1) }},
	{"quiet", diagnosis.NoCount, "No agent has told a count", func(t *testing.T, w *wrong) { w.device(t, "quiet") }},
	{"window", diagnosis.WaitingForWindow, "2 waits for the end of the coalescing window", func(t *testing.T, w *wrong) {
		w.device(t, "window")
		w.tell(t, "window", 1)
		w.wantVerdict(t, "window", diagnosis.Right)
		w.tell(t, "window", 2)
	}},
	{"paused", diagnosis.DevicePaused, "TooManyRequests", func(t *testing.T, w *wrong) {
		w.answers(w.device(t, "paused"), 429, apns.ReasonTooManyRequests)
		w.tell(t, "paused", 1)
	}},
	{"portal", diagnosis.ForeignAnswer, "answers in its place (ForeignAnswer at", func(t *testing.T, w *wrong) {
		w.sim.NextFor(w.device(t, "portal"), apnstest.Answer{Status: 403, Body: "<html>log in first</html>", RetryAfter: time.Hour})
		w.tell(t, "portal", 1)
	}},
	{"unwell", diagnosis.CountBlocked, "APNs answered ServiceUnavailable to 1", func(t *testing.T, w *wrong) {
		w.answers(w.device(t, "unwell"), 503, "ServiceUnavailable")
		w.tell(t, "unwell", 1)
	}},
	{"dropped", diagnosis.NotShown, "APNs refused the last push to the device, PayloadTooLarge at", func(t *testing.T, w *wrong) {
		w.answers(w.device(t, "dropped"), 413, "PayloadTooLarge")
		w.tell(t, "dropped", 1)
	}},
	{"unanswered", diagnosis.WaitingForAnswer, "no answer yet", func(t *testing.T, w *wrong) {
		w.sim.NextFor(w.device(t, "unanswered"), apnstest.Answer{Delay: time.Minute})
		w.tell(t, "unanswered", 1)
	}},
	{"gone", diagnosis.DeviceRemoved, "410 Unregistered", func(t *testing.T, w *wrong) {
		d := w.device(t, "gone")
		w.tell(t, "gone", 1)
		w.wantVerdict(t, "gone", diagnosis.Right)
		w.sim.Unregister(d, time.Now())
		w.tell(t, "gone", 2)
	}},
	{"back", diagnosis.DeviceGone, "before its last registration", func(t *testing.T, w *wrong) {
		w.sim.Unregister(w.device(t, "back"), time.Now().Add(-time.Hour))
		w.tell(t, "back", 1)
	}},
	{"bogus", diagnosis.DeviceRefused, "BadDeviceToken", func(t *testing.T, w *wrong) {
		w.put(t, "bogus", "mail")
		w.tell(t, "bogus", 1)
	}},
	{"half", diagnosis.DevicePaused, "The other 1 of 2 devices are right.", func(t *testing.T, w *wrong) {
		w.device(t, "half")
		w.answers(w.device(t, "half"), 429, apns.ReasonTooManyRequests)
		w.tell(t, "half", 1)
	}},
	{"sum", diagnosis.PartMissing, "nobody has told the count of missing", func(t *testing.T, w *wrong) {
		w.putAgain(t, "missing", "mail", w.device(t, "sum"), "--keep-others")
		w.tell(t, "sum", 1)
	}},
	{"unproven", diagnosis.AppRefused, "APNs refuses the app's token: InvalidProviderToken since", func(t *testing.T, w *wrong) {
		w.put(t, "unproven", "unproven")
		w.tell(t, "unproven", 1)
	}},
	{"mistyped", diagnosis.AppRefused, "APNs refuses the app's topic: TopicDisallowed since", func(t *testing.T, w *wrong) {
		w.put(t, "mistyped", "mistyped")
		w.tell(t, "mistyped", 1)
	}},
	{"cut-off", diagnosis.APNsUnreachable, "no connection to APNs for the app cut-off", func(t *testing.T, w *wrong) {
		w.put(t, "cut-off", "cut-off")
		w.tell(t, "cut-off", 1)
	}},
	{"sandboxed0", diagnosis.AppMisconfigured, "apps[].environment", func(t *testing.T, w *wrong) {
		for n := range 20 { // as of people whose devices are all of the other environment
			w.put(t, fmt.Sprint("sandboxed", n), "sandboxed")
			w.tell(t, fmt.Sprint("sandboxed", n), 1)
		}
	}},
	{"storm0", diagnosis.APNsOutage, "pushes go one by one", func(t *testing.T, w *wrong) {
		for n := range 25 {
			w.answers(w.device(t, fmt.Sprint("storm", n)), 500, apns.ReasonInternalServerError)
		}
		for n := range 25 {
			w.tell(t, fmt.Sprint("storm", n), 1)
		}
	}},
	{"ann@fabrikam.com", diagnosis.OrganizationDisabled, "is disabled", func(t *testing.T, w *wrong) {
		w.admin(t, "organization", "disable", enrolledOrganization)
	}},
	{"quiet", diagnosis.NoAgent, "the last one, test, left", func(t *testing.T, w *wrong) {
		w.agent.leave()
		w.admin(t, "organization", "enable", enrolledOrganization)
	}},
	{"ann@fabrikam.com", diagnosis.Right, "3 on both devices since", nil},
	{"ann@fabrikam.com", diagnosis.Right, "No agent is connected", nil},
	{"back", diagnosis.DeviceGone, "No agent is connected", nil}, // what APNs answered is not hidden
	{"ann@fabrikam.com", diagnosis.NoCredential, "has no credential", func(t *testing.T, w *wrong) {
		der, err := os.ReadFile(w.files.path("organization.cer"))
		if err != nil {
			t.Fatal(err)
		}
		w.admin(t, "credential", "remove", "--organization", enrolledOrganization, fmt.Sprintf("%X", sha1.Sum(der)))
	}},
	{"ann@fabrikam.com", diagnosis.CredentialExpired, "the last one ended 30 min ago", func(t *testing.T, w *wrong) {
		w.admin(t, "credential", "add", "--organization", enrolledOrganization, "--certificate", w.files.path("organization.cer"), "--force",
			"--end", time.Now().Add(-30*time.Minute).Format(time.RFC3339))
	}},
	{"sandboxed0", diagnosis.AppUnknown, `the app "sandboxed", which the relay does not have`, func(t *testing.T, w *wrong) {
		w.stop(t)
		w.start(w.apps)
	}},
	{"ann@fabrikam.com", diagnosis.RelayDraining, "is leaving", func(t *testing.T, w *wrong) {
		var file string
		w.issuer, file = newIssuer(t, w.files, "next.cer")
		w.admin(t, "credential", "add", "--organization", enrolledOrganization, "--certificate", file)
		w.answers(w.device(t, "late"), 429, apns.ReasonTooManyRequests)
		call := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+w.token(t))
		go func() { // what is published keeps the relay from its end; ends with the relay
			_, _ = pb.NewRelayServiceClient(w.dial(t)).Publish(call, &pb.PublishRequest{AgentId: "test", Events: []*pb.Event{{Mailbox: "late", UnreadCount: 2}}})
		}()
		w.wantVerdict(t, "late", diagnosis.DevicePaused)
		w.cancel()
		w.log.wait(t, "draining")
	}},
}

func TestWrongBadges(t *testing.T) {
	w := startWrong(t)
	for _, one := range wrongBadges {
		name := fmt.Sprintf("%s %s", one.code, one.mailbox)
		if !t.Run(name, func(t *testing.T) {
			if one.happens != nil {
				one.happens(t, w)
			}
			w.wantVerdict(t, one.mailbox, one.code, one.says)
		}) {
			return
		}
	}
}
