package daemon

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"sync"
	"time"

	"badgerelay/apns"
	"badgerelay/cmd/internal/configfile"
	"badgerelay/cmd/internal/process"
	"badgerelay/relay"
	"badgerelay/relay/admin"
	"badgerelay/relay/registry"
)

func (d *daemon) startAdmin(lifecycle *process.Lifecycle, listeners *listeners) error {
	tlsConfig, err := d.adminTLS()
	if err != nil {
		return err
	}
	var others func(context.Context) ([]registry.Presence, error)
	if d.postgres != nil {
		others = d.postgres.Presences
	}
	d.admin, err = admin.New(admin.Config{
		Place: placeOf(listeners.agents.Addr()), Others: others,
		Relay: d.relay, Registry: d.registry, Agents: d.server, Status: d.status, Probe: d.probe, StatusKey: d.statusKey(listeners),
		TLS: tlsConfig, DisableReflection: !d.config.Reflection(), Logger: d.Component("admin"), Registerer: d.Metrics,
	})
	if err != nil {
		return err
	}
	lifecycle.Start("admin", func(ctx context.Context) error { return d.admin.Run(ctx, listeners.admin) }, nil)
	return nil
}

// pushTimeout bounds one push of a probe, connecting included.
const pushTimeout = 15 * time.Second

// probe tests the registry and the agents' certificate, then each app's way to
// Apple, all apps at once.
func (d *daemon) probe(ctx context.Context, only string) ([]admin.ProbeStage, error) {
	stages := []admin.ProbeStage{
		stage("registry", func() (string, error) { return d.probeRegistry(ctx) }),
		stage("certificate", d.probeCertificate),
	}
	var apps []*app
	for _, a := range d.apps.all() {
		if only == "" || a.name == only {
			apps = append(apps, a)
		}
	}
	if len(d.apps.all()) == 0 {
		return append(stages, stage("apns", func() (string, error) {
			return "name one under apps, with its credential", errors.New("no app is configured: nothing can be pushed, and every subscription is refused")
		})), nil
	}
	found := make([]admin.ProbeStage, len(apps))
	var wg sync.WaitGroup
	for i, a := range apps {
		wg.Go(func() { // ends within pushTimeout
			found[i] = stage("apns "+a.name, func() (string, error) { return a.probe(ctx, d.relay.Health(a.name)) })
		})
	}
	wg.Wait()
	return append(stages, found...), nil
}

func (d *daemon) probeRegistry(ctx context.Context) (string, error) {
	counts, err := d.registry.Counts(ctx)
	if err != nil {
		return "look at its disk and at registry.path, or at the server of registry.url", err
	}
	if d.file != nil {
		if err := d.file.InPlace(); err != nil {
			return "what is registered now will be lost: restart the relay", err
		}
	}
	found := fmt.Sprintf("organizations: %d, credentials: %d, subscriptions: %d", counts.Organizations, counts.Credentials, counts.Subscriptions)
	if d.postgres != nil {
		loses, err := d.postgres.FailoverLoses(ctx)
		if err != nil {
			return "look at the server of registry.url", err
		}
		if loses {
			found += "; a failover may lose what was acknowledged last: " + noStandby
		}
	}
	return found, nil
}

func (d *daemon) probeCertificate() (string, error) {
	leaf := d.certs.Leaf("listen")
	if leaf == nil {
		return "agents are served in plain text, on loopback only", nil
	}
	end := leaf.NotAfter.UTC().Format("2006-01-02")
	if time.Now().After(leaf.NotAfter) {
		return "renew listen.tls and send SIGHUP", fmt.Errorf("the certificate shown to agents expired on %s", end)
	}
	if foreign := configfile.Foreign(leaf, d.config.Auth.Authorities); foreign != "" {
		return "compare the names in listen.tls with auth.authorities", errors.New(foreign)
	}
	return fmt.Sprintf("the one shown to agents is valid until %s (days left: %d)", end, int(time.Until(leaf.NotAfter)/(24*time.Hour))), nil
}

func stage(name string, try func() (string, error)) admin.ProbeStage {
	began := time.Now()
	detail, err := try()
	if err != nil {
		detail = fmt.Sprintf("%v; %s", err, detail)
	}
	return admin.ProbeStage{Name: name, OK: err == nil, Detail: detail, Duration: time.Since(began)}
}

// probe pushes to a device that can't exist. BadDeviceToken proves the name,
// the connection, TLS, the credential and the topic; only the device is
// missing. It says nothing about the environment, which only the app's devices
// tell.
func (a *app) probe(ctx context.Context, health relay.Health) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, pushTimeout)
	defer cancel()
	ctx, giveUp := context.WithCancelCause(ctx)
	go a.watchConnecting(ctx, giveUp) // ends with ctx
	defer giveUp(nil)
	_, err := a.pool.Push(ctx, apns.Request{Device: apns.ImpossibleDevice(), Priority: apns.PriorityPower})
	refusal, refused := errors.AsType[*apns.Error](err)
	switch {
	case err == nil:
		return "something else than Apple seems to answer at its address", errors.New("an impossible device token was accepted")
	case refused && refusal.Reason == apns.ReasonBadDeviceToken && health.Misconfigured:
		return "check environment, topic and credential: APNs knows none of the app's devices by them. Nothing is lost: subscriptions are kept",
			fmt.Errorf("APNs refuses nearly every device, %d of them, and accepts %d", health.Quarantined, health.Accepted)
	case refused && refusal.Reason == apns.ReasonBadDeviceToken:
		return "an impossible device token came back as BadDeviceToken: connection, credential and topic are good", nil
	case refused:
		return advice(refusal.Reason), err
	}
	if failed, ok := errors.AsType[*connectError](context.Cause(ctx)); ok {
		return a.connectAdvice(failed.error), failed
	}
	if errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("no answer within %s", pushTimeout)
		if last := a.pool.Stats().LastError; last != nil {
			return a.connectAdvice(last), fmt.Errorf("%w; the last failure: %w", err, last)
		}
	}
	return a.connectAdvice(err), err
}

// connectError is why a probe gave up before its time.
type connectError struct{ error }

func (e *connectError) Unwrap() error { return e.error }

// How a probe watches whether there is a connection to push over.
const (
	connectPoll    = 50 * time.Millisecond
	connectTimeout = 3 * time.Second // with a pool that waits after failures before it connects again
)

// watchConnecting gives up once an attempt to connect has failed, or the pool is
// between attempts for long, while there is no connection: whoever probes is not
// kept waiting for what is known.
func (a *app) watchConnecting(ctx context.Context, giveUp context.CancelCauseFunc) {
	before, began := a.pool.Stats().ConnectsFailed, time.Now()
	tick := time.NewTicker(connectPoll)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			s := a.pool.Stats()
			if s.Connections > 0 || s.LastError == nil {
				continue
			}
			if s.ConnectsFailed > before || s.State == apns.StateOutage && now.Sub(began) > connectTimeout {
				giveUp(&connectError{s.LastError})
				return
			}
		}
	}
}

// connectAdvice says what to look at where no connection to Apple comes about.
func (a *app) connectAdvice(err error) string {
	where := "the way to Apple: name resolution, proxy, firewall to port 443"
	if a.config.Proxy != "" {
		where = "apps[].proxy of app " + a.name + ", and whether it lets one through to Apple's port 443"
	} else if a.config.Address != "" {
		where = "apps[].address of app " + a.name + ", " + a.config.Address
	}
	_, authority := errors.AsType[x509.UnknownAuthorityError](err)
	_, name := errors.AsType[x509.HostnameError](err)
	switch {
	case authority && a.config.CAFile != "":
		return "check apps[].ca_file of app " + a.name + ": what answers shows a certificate of another authority"
	case authority && a.config.Address != "":
		return "check apps[].ca_file of app " + a.name + ", which is not set: what answers at " + a.config.Address + " shows a certificate of an authority that this machine does not know, as a simulator's is"
	case authority, name:
		return "what answers does not show Apple's certificate: check " + where
	}
	return "check " + where
}

// advice says what to do about a refusal of the credential or the topic.
func advice(r apns.Reason) string {
	switch r {
	case apns.ReasonInvalidProviderToken:
		return "check key_file, key_id and team_id, and that Apple has not revoked the key"
	case apns.ReasonExpiredProviderToken:
		return "check this machine's clock"
	case "TopicDisallowed", "BadTopic":
		return "check topic: the key or certificate must belong to the app's team"
	case "BadCertificate", "BadCertificateEnvironment":
		return "check certificate and environment"
	}
	return "see Apple's page on responses from APNs"
}
