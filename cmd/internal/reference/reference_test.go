package reference

import "testing"

const pages = "../../../deploy/"

func TestReference(t *testing.T) {
	const shared = "../configfile"
	Compare(t, pages+"settings.md", "badgerelay", Settings(t, "Config", "../../badgerelay/internal/config", shared))
	Compare(t, pages+"settings.md", "badgeagent", Settings(t, "Config", "../../badgeagent/internal/config", shared))
	Compare(t, pages+"reference.md", "alerts", Alerts(t, pages+"prometheus/badgerelay.rules.yaml"))
	Compare(t, pages+"mailbox.md", "alerts", Alerts(t, pages+"prometheus/badgeagent.rules.yaml"))
	Compare(t, pages+"reference.md", "log", Log(t))
}
