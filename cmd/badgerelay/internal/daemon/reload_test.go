package daemon

import (
	"strings"
	"testing"

	"badgerelay/cmd/badgerelay/internal/config"
	"badgerelay/cmd/internal/configfile"
)

func TestReloadKnowsWhatNeedsARestart(t *testing.T) {
	parse := func(s string) *config.Config {
		c, err := configfile.Parse[config.Config]("", []byte(s))
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	old := parse("log: {level: info}\nlisten: {tls: {certificate_file: a, key_file: b}}\napps: [{topic: x, token: {key_file: a, key_id: b, team_id: c}}]\n")
	for next, want := range map[string]string{
		"log: {level: debug}\nlisten: {tls: {certificate_file: c, key_file: d}}\napps: [{topic: x, certificate: {file: y}}]\n": "",
		"log: {format: text}\nlisten: {address: a:1}\napps: [{topic: y, token: {key_id: b}}]\n":                                "listen,apps,log",
		"registry: {path: z}\nlisten: {tls: {certificate_file: a, key_file: b}}\napps: []\n":                                   "registry,apps",
	} {
		if got := strings.Join(needRestart(old, parse(next)), ","); got != want {
			t.Errorf("needRestart(%q) = %s, want %s", next, got, want)
		}
	}
}
