package daemon

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"os"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"badgerelay/apns"
	"badgerelay/cmd/badgerelay/internal/config"
	"badgerelay/relay/ingest"
)

// app is one configured app with its pool.
type app struct {
	name   string
	config config.App
	pool   *apns.Pool
}

func appNames(c *config.Config) []string {
	var names []string
	for i := range c.Apps {
		names = append(names, c.Apps[i].DisplayName())
	}
	return names
}

// buildApps makes a pool for each app and connects it with the relay.
func (d *daemon) buildApps(c *config.Config) error {
	metrics, err := apns.NewMetrics(d.metrics)
	if err != nil {
		return fmt.Errorf("register apns metrics: %w", err)
	}
	for i := range c.Apps {
		a := &app{name: c.Apps[i].DisplayName(), config: c.Apps[i]}
		cfg, err := d.poolConfig(&c.Apps[i])
		if err != nil {
			return fmt.Errorf("apps[%d] %s: %w", i, a.name, err)
		}
		cfg.Source, cfg.Metrics, cfg.DrainTimeout = d.relay.Source(a.name), metrics, poolDrain(c)
		if a.pool, err = apns.NewPool(cfg); err != nil {
			return fmt.Errorf("apps[%d] %s: %w", i, a.name, err)
		}
		d.relay.SetWake(a.name, a.pool.Wake)
		d.apps = append(d.apps, a)
	}
	return nil
}

// poolDrain is how much of the budget of a stop the pools have, all at once,
// for the answers that are still out.
func poolDrain(c *config.Config) time.Duration { return min(10*time.Second, c.DrainTimeout()/3) }

// runPools runs every app's pool until ctx is done. They stop side by side, so
// that many unreachable ones cost no more of the budget than one.
func (d *daemon) runPools(ctx context.Context) error {
	pools, ctx := errgroup.WithContext(ctx)
	for _, a := range d.apps {
		pools.Go(func() error {
			if err := a.pool.Run(ctx); err != nil {
				return fmt.Errorf("app %s: %w", a.name, err)
			}
			return nil
		})
	}
	<-ctx.Done() // without apps there is nothing to run, and nothing wrong
	return pools.Wait()
}

// drainRelay settles what can be settled, and leaves the pools their share.
func (d *daemon) drainRelay(budget context.Context) error {
	if deadline, ok := budget.Deadline(); ok {
		ctx, cancel := context.WithDeadline(budget, deadline.Add(-poolDrain(d.config)))
		defer cancel()
		budget = ctx
	}
	return d.relay.Drain(budget)
}

func (d *daemon) poolConfig(a *config.App) (apns.Config, error) {
	credential, err := d.credential(a)
	if err != nil {
		return apns.Config{}, err
	}
	cfg := apns.Config{
		App: a.DisplayName(), Topic: a.Topic, Environment: environment(a), Addr: a.Address, Engine: apns.Engine(a.Engine),
		Token: credential.Token, Certificate: credential.Certificate,
		MaxConns: a.MaxConnections, ConnectsPerSecond: a.ConnectsPerSecond,
		Lifetime: time.Duration(a.Expiration), AnswerTimeout: time.Duration(a.AnswerTimeout), Logger: d.component("apns"),
	}
	if a.Proxy != "" {
		if cfg.Proxy, err = url.Parse(a.Proxy); err != nil {
			return cfg, errors.New("proxy is not a URL") // it may hold a password
		}
	}
	if a.CAFile == "" {
		return cfg, nil
	}
	data, err := os.ReadFile(a.CAFile)
	if err != nil {
		return cfg, fmt.Errorf("ca_file: %w", err)
	}
	cfg.RootCAs = x509.NewCertPool()
	if !cfg.RootCAs.AppendCertsFromPEM(data) {
		return cfg, fmt.Errorf("ca_file: %s holds no certificate", a.CAFile)
	}
	return cfg, nil
}

// credential reads an app's key or certificate. Apps of one key share their
// provider token, because Apple counts renewals per team.
func (d *daemon) credential(a *config.App) (apns.Credential, error) {
	if a.Token == (config.AppToken{}) {
		certificate, err := a.Certificate.Load()
		if err != nil {
			return apns.Credential{}, fmt.Errorf("certificate: %w", err)
		}
		return apns.Credential{Certificate: certificate}, nil
	}
	token, err := d.tokens.Get(apns.TokenConfig{
		KeyFile: a.Token.KeyFile, KeyID: a.Token.KeyID, TeamID: a.Token.TeamID, Environment: environment(a),
	})
	if err != nil {
		return apns.Credential{}, fmt.Errorf("token: %w", err)
	}
	return apns.Credential{Token: token}, nil
}

func environment(a *config.App) apns.Environment {
	if a.Environment == "sandbox" {
		return apns.Sandbox
	}
	return apns.Production
}

// rereadApps reads the credentials of every app that is still configured, and
// returns what puts them in force; nothing has changed until that is called.
func (d *daemon) rereadApps(next *config.Config) (apply func() error, err error) {
	fresh := map[*app]apns.Credential{}
	for _, a := range d.apps {
		i := slices.IndexFunc(next.Apps, func(n config.App) bool { return n.DisplayName() == a.name })
		if i < 0 {
			continue
		}
		credential, err := d.credential(&next.Apps[i])
		if err != nil {
			return nil, fmt.Errorf("apps[%d] %s: %w", i, a.name, err)
		}
		fresh[a] = credential
	}
	return func() error {
		var errs []error
		for a, credential := range fresh {
			errs = append(errs, a.pool.SetCredential(credential))
		}
		return errors.Join(errs...)
	}, nil
}

// status describes the app for operators.
func (a *app) status() ingest.AppStatus {
	s := a.pool.Stats()
	status := ingest.AppStatus{
		Name: a.name, Topic: s.Topic, Sandbox: s.Environment == apns.Sandbox, Credential: "token", Engine: string(apns.EngineNative),
		Connections: uint32(s.Connections), StreamsGranted: uint32(s.StreamsGranted), PushesInFlight: uint32(s.InFlight),
		State: s.State.String(), ProviderTokenAge: s.TokenAge, CertificateExpiresAt: s.CertificateEnd,
	}
	if a.config.Engine != "" {
		status.Engine = a.config.Engine
	}
	if !s.CertificateEnd.IsZero() {
		status.Credential = "certificate"
	}
	if s.LastError != nil {
		status.LastError = s.LastError.Error()
	}
	return status
}
