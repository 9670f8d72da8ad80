package agentd

import (
	"reflect"

	"badgerelay/cmd/badgeagent/internal/config"
	"badgerelay/cmd/internal/configfile"
)

// reload reads the log level again, and the files that the configuration of the
// start names: their paths wait for a restart with all else. What is wrong leaves
// the old state in force.
func (d *Daemon) reload() {
	if d.options.Reread == nil {
		return
	}
	next, err := d.options.Reread()
	if err != nil {
		for _, p := range configfile.Problems(err) {
			d.log.Error("reload refused", "problem", p.Error())
		}
		d.log.Error("the configuration of before stays in force")
		return
	}
	if err := d.local.reload(); err != nil {
		d.log.Error("reload incomplete", "problem", err)
	}
	for _, reload := range d.reloads {
		if err := reload(); err != nil {
			d.log.Error("reload incomplete", "problem", err)
		}
	}
	d.level.Set(next.Log.SlogLevel())
	d.log.Info("reloaded secrets and log level")
	if restart := needRestart(d.config, next); len(restart) > 0 {
		d.log.Warn("changed settings that wait for a restart", "sections", restart)
	}
}

// needRestart names the sections that differ in what a reload does not apply.
func needRestart(old, next *config.Config) []string {
	now := *next
	now.Log.Level = old.Log.Level
	a, b := reflect.ValueOf(*old), reflect.ValueOf(now)
	var sections []string
	for i := range a.NumField() {
		if !reflect.DeepEqual(a.Field(i).Interface(), b.Field(i).Interface()) {
			sections = append(sections, a.Type().Field(i).Tag.Get("yaml"))
		}
	}
	return sections
}
