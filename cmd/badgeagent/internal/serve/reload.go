package serve

import (
	"errors"

	"badgerelay/cmd/badgeagent/internal/config"
	"badgerelay/cmd/internal/configfile"
)

// reload reads the log level again, and the files that the configuration of the
// start names: their paths wait for a restart with all else. What is wrong leaves
// the old state in force.
func (s *Server) reload() {
	if s.options.Reread == nil {
		return
	}
	next, err := s.options.Reread()
	if err != nil {
		for _, p := range configfile.Problems(err) {
			s.log.Error("reload refused; keeping the previous configuration", "problem", p.Error())
		}
		return
	}
	apply, err := s.certificates.Reread(map[string]configfile.TLS{"local": s.config.Local.TLS, "metadata": s.config.Metadata.TLS})
	if err == nil {
		apply()
	}
	errs := []error{err, s.local.reload()}
	for _, reload := range s.reloads {
		errs = append(errs, reload())
	}
	s.level.Set(next.Log.SlogLevel())
	if err := errors.Join(errs...); err != nil {
		s.log.Error("reload incomplete", "problem", err)
	} else {
		s.log.Info("reloaded secrets and log level")
	}
	if restart := needRestart(s.config, next); len(restart) > 0 {
		s.log.Warn("changed settings that wait for a restart", "sections", restart)
	}
}

// needRestart names the sections that differ in what a reload does not apply.
func needRestart(old, next *config.Config) []string {
	now := *next
	now.Log.Level = old.Log.Level
	return configfile.Changed(*old, now)
}
