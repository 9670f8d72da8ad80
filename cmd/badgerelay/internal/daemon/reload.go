package daemon

import (
	"context"
	"errors"
	"reflect"
	"slices"

	"badgerelay/cmd/badgerelay/internal/config"
)

// reload reads the configuration and all that it names again. Everything is
// read before anything is changed: a file that is wrong leaves the old state
// in force.
func (d *daemon) reload(ctx context.Context) {
	if d.reread == nil {
		return
	}
	next, err := d.reread()
	if err != nil {
		for _, p := range config.Problems(err) {
			d.reloadRefused(p)
		}
		return
	}
	certificates, err := d.certs.reread(next)
	if err != nil {
		d.reloadRefused(err)
		return
	}
	credentials, err := d.rereadApps(next)
	if err != nil {
		d.reloadRefused(err)
		return
	}
	apps, err := d.newApps(next)
	if err != nil {
		d.reloadRefused(err)
		return
	}
	certificates()
	if err := errors.Join(credentials(), apps(ctx)); err != nil {
		d.logger.Error("reload incomplete", "problem", err)
	}
	d.level.Set(next.Log.SlogLevel())
	d.server.SetLimits(d.limits(next))
	restart := needRestart(d.applied, next)
	d.applied = next
	d.logger.Info("reloaded certificates, new apps, app credentials, limits and log level")
	if len(restart) > 0 {
		d.logger.Warn("changed settings that wait for a restart", "sections", restart)
	}
}

func (d *daemon) reloadRefused(problem error) {
	d.logger.Error("reload refused; the configuration of before stays in force", "problem", problem)
}

// needRestart names the sections that differ in what a reload does not apply.
func needRestart(old, next *config.Config) []string {
	known := appNames(old)
	common := *next
	common.Apps = slices.DeleteFunc(slices.Clone(next.Apps), func(a config.App) bool { return !slices.Contains(known, a.DisplayName()) })
	a, b := reflect.ValueOf(fixed(old)), reflect.ValueOf(fixed(&common))
	var sections []string
	for i := range a.NumField() {
		if !reflect.DeepEqual(a.Field(i).Interface(), b.Field(i).Interface()) {
			sections = append(sections, a.Type().Field(i).Tag.Get("yaml"))
		}
	}
	return sections
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
	f.Apps = nil
	for _, a := range c.Apps {
		if a.Token != (config.AppToken{}) || a.Certificate != (config.AppCertificate{}) {
			a.Token, a.Certificate = config.AppToken{KeyID: "set"}, config.AppCertificate{}
		}
		f.Apps = append(f.Apps, a)
	}
	return f
}
