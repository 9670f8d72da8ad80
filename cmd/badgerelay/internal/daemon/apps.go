package daemon

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"badgerelay/apns"
	"badgerelay/cmd/badgerelay/internal/config"
	"badgerelay/cmd/internal/configfile"
	"badgerelay/relay"
)

// app is one configured app with its pool.
type app struct {
	name   string
	config config.App
	pool   *apns.Pool
}

// apps are the apps that run. They come, and none goes before the end.
type apps struct {
	metrics *apns.Metrics
	fresh   chan *app     // those that a reload has added, for runPools
	closed  chan struct{} // closed when runPools takes no more of them

	mu   sync.Mutex // guards list, which is replaced as a whole
	list []*app
}

func (l *apps) all() []*app {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.list
}

func (l *apps) add(a *app) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.list = append(slices.Clip(l.list), a)
}

func (l *apps) names() []string {
	var names []string
	for _, a := range l.all() {
		names = append(names, a.name)
	}
	return names
}

func appNames(c *config.Config) []string {
	var names []string
	for i := range c.Apps {
		names = append(names, c.Apps[i].DisplayName())
	}
	return names
}

// buildApps makes a pool for each app and connects it with the relay.
func (d *daemon) buildApps(c *config.Config) (err error) {
	d.apps.fresh, d.apps.closed = make(chan *app), make(chan struct{})
	if d.apps.metrics, err = apns.NewMetrics(d.Metrics); err != nil {
		return fmt.Errorf("register apns metrics: %w", err)
	}
	for i := range c.Apps {
		cfg, err := d.poolConfig(&c.Apps[i])
		if err == nil {
			_, err = d.startApp(&c.Apps[i], cfg)
		}
		if err != nil {
			return fmt.Errorf("apps[%d] %s: %w", i, c.Apps[i].DisplayName(), err)
		}
	}
	return nil
}

// startApp makes an app's pool and connects it with the relay; runPools runs it.
func (d *daemon) startApp(c *config.App, cfg apns.Config) (a *app, err error) {
	a = &app{name: c.DisplayName(), config: *c}
	cfg.Source, cfg.Metrics, cfg.DrainTimeout = d.relay.AddApp(a.name), d.apps.metrics, poolDrain(d.config)
	if a.pool, err = apns.NewPool(cfg); err != nil {
		return nil, err
	}
	d.relay.SetWake(a.name, a.pool.Wake)
	d.relay.SetGeneration(a.name, relay.Generation(a.pool.Generation()))
	d.relay.SetSumAcrossOrganizations(a.name, c.SumsAcrossOrganizations())
	d.apps.add(a)
	return a, nil
}

var errPoolsEnded = errors.New("the pools have ended")

// addApp starts an app that a reload has brought.
func (d *daemon) addApp(ctx context.Context, c *config.App, cfg apns.Config) error {
	a, err := d.startApp(c, cfg)
	if err != nil {
		return fmt.Errorf("app %s: %w", c.DisplayName(), err)
	}
	select {
	case d.apps.fresh <- a:
	case <-d.apps.closed: // the daemon is about to end for it
		return errPoolsEnded
	case <-ctx.Done():
		return ctx.Err()
	}
	d.Log.Info("app added", "app", a.name)
	return nil
}

// poolDrain is how much of the budget of a stop the pools have, all at once,
// for the answers that are still out.
func poolDrain(c *config.Config) time.Duration { return min(10*time.Second, c.DrainTimeout()/3) }

// runPools runs every app's pool until ctx is done. They stop side by side, so
// that many unreachable ones cost no more of the budget than one.
func (d *daemon) runPools(ctx context.Context) error {
	pools, ctx := errgroup.WithContext(ctx)
	run := func(a *app) {
		pools.Go(func() error { // ends with ctx
			if err := a.pool.Run(ctx); err != nil {
				return fmt.Errorf("app %s: %w", a.name, err)
			}
			return nil
		})
	}
	for _, a := range d.apps.all() {
		run(a)
	}
	for { // without apps there is nothing to run, and nothing wrong
		select {
		case a := <-d.apps.fresh:
			run(a)
		case <-ctx.Done():
			close(d.apps.closed)
			return pools.Wait()
		}
	}
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
		Lifetime: time.Duration(a.Expiration), AnswerTimeout: time.Duration(a.AnswerTimeout), Logger: d.Component("apns"),
	}
	if a.Proxy != "" {
		if cfg.Proxy, err = url.Parse(a.Proxy); err != nil {
			return cfg, errors.New("proxy is not a URL") // it may hold a password
		}
	}
	if a.CAFile != "" { // else the system's
		if cfg.RootCAs, err = configfile.Pool(a.CAFile); err != nil {
			return cfg, fmt.Errorf("ca_file: %w", err)
		}
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

// rereadApps reads what the apps take, and returns what starts those that do not run yet,
// and has the others take what a reload changes of them; nothing has changed until that is
// called.
func (d *daemon) rereadApps(next *config.Config) (apply func(context.Context) error, err error) {
	var changed, added []func(context.Context) error
	for i := range next.Apps {
		c := &next.Apps[i]
		cfg, err := d.poolConfig(c)
		if err != nil {
			return nil, fmt.Errorf("apps[%d] %s: %w", i, c.DisplayName(), err)
		}
		running := slices.IndexFunc(d.apps.all(), func(a *app) bool { return a.name == c.DisplayName() })
		if running < 0 {
			added = append(added, func(ctx context.Context) error { return d.addApp(ctx, c, cfg) })
			continue
		}
		a := d.apps.all()[running]
		changed = append(changed, func(context.Context) error {
			a.pool.SetRootCAs(cfg.RootCAs)
			err := a.pool.SetCredential(apns.Credential{Token: cfg.Token, Certificate: cfg.Certificate})
			d.relay.SetGeneration(a.name, relay.Generation(a.pool.Generation()))
			d.relay.SetSumAcrossOrganizations(a.name, c.SumsAcrossOrganizations())
			return err
		})
	}
	return func(ctx context.Context) error {
		var errs []error
		for _, change := range append(changed, added...) {
			err := change(ctx)
			if errors.Is(err, errPoolsEnded) || ctx.Err() != nil {
				return err
			}
			errs = append(errs, err)
		}
		d.server.SetApps(d.apps.names())
		return errors.Join(errs...)
	}, nil
}
