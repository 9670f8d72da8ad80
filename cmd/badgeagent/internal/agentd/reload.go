package agentd

import "badgerelay/cmd/internal/configfile"

// reload reads the secrets and the log level again. What is wrong leaves the
// old state in force.
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
		if err := reload(next); err != nil {
			d.log.Error("reload incomplete", "problem", err)
		}
	}
	d.level.Set(next.Log.SlogLevel())
	d.log.Info("reloaded secrets and log level")
}
