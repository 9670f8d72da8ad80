package daemon

import (
	"context"
	"slices"
	"strings"

	"badgerelay/cmd/badgerelay/internal/config"
	"badgerelay/cmd/internal/configfile"
)

// reload reads the configuration and all that it names again. Everything is
// read before anything is changed: a file that is wrong leaves the old state
// in force.
func (d *daemon) reload(ctx context.Context) {
	if d.reread == nil {
		return
	}
	next, warnings, err := d.reread()
	if err != nil {
		for _, p := range configfile.Problems(err) {
			d.reloadRefused(p)
		}
		return
	}
	certificates, err := d.certs.Reread(map[string]configfile.TLS{"listen": next.Listen.TLS, "admin": next.Admin.TLS, "metadata": next.MetadataTLS()})
	if err != nil {
		d.reloadRefused(err)
		return
	}
	apps, err := d.rereadApps(next)
	if err != nil {
		d.reloadRefused(err)
		return
	}
	certificates()
	d.Warn(warnings)
	err = apps(ctx)
	d.Level.Set(next.Log.SlogLevel())
	d.server.SetLimits(d.limits(next))
	restart := needRestart(d.running(), next)
	if err != nil {
		d.Log.Error("reload incomplete", "problem", err)
	} else {
		d.Log.Info("reloaded certificates, authorities, new apps, app credentials, sums across organizations, limits and log level")
	}
	if len(restart) > 0 {
		d.Log.Warn("changed settings that wait for a restart", "sections", restart)
	}
}

// running is the configuration of the start, with the apps that run: what a
// reload does not apply is compared with it, however often it is asked for.
func (d *daemon) running() *config.Config {
	c := *d.config
	c.Apps = nil
	for _, a := range d.apps.all() {
		c.Apps = append(c.Apps, a.config)
	}
	return &c
}

func (d *daemon) reloadRefused(problem error) {
	d.Log.Error("reload refused; keeping the previous configuration", "problem", problem)
}

// needRestart names the sections that differ in what a reload does not apply.
func needRestart(old, next *config.Config) []string {
	return configfile.Changed(fixed(old), fixed(next))
}

// fixed returns the configuration without what a reload applies.
func fixed(c *config.Config) config.Config {
	f := *c
	f.Log.Level = ""
	f.Limits = config.Limits{BatchEvents: c.Limits.BatchEvents}
	for _, t := range []*config.TLS{&f.Listen.TLS, &f.Admin.TLS, &f.Metadata.TLS} {
		if *t != (config.TLS{}) {
			*t = config.TLS{CertificateFile: "set"}
		}
	}
	f.Apps = []config.App{}
	for _, a := range c.Apps {
		if a.Token != (config.AppToken{}) || a.Certificate != (config.AppCertificate{}) {
			a.Token, a.Certificate = config.AppToken{KeyID: "set"}, config.AppCertificate{}
		}
		a.CAFile, a.SumAcrossOrganizations = "", nil
		f.Apps = append(f.Apps, a)
	}
	slices.SortFunc(f.Apps, func(a, b config.App) int { return strings.Compare(a.DisplayName(), b.DisplayName()) })
	return f
}
