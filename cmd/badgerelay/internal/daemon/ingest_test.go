package daemon

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"badgerelay/cmd/badgerelay/internal/config"
	"badgerelay/cmd/internal/process"
)

func TestConnectionsLeaveFilesForTheRest(t *testing.T) {
	for _, test := range []struct {
		connections, toAPNs int
		files               uint64
		want                int
		said                bool
	}{
		{0, 0, 65536, 20_000, false},
		{0, 0, 20_408, 20_000, false},
		{0, 0, 20_407, 19_999, true},
		{0, 0, 1024, 616, true},
		{0, 50, 1024, 532, true},
		{500, 0, 1024, 500, false},
		{500, 0, 100, 16, true},
		{500, 0, 0, 500, false},
	} {
		var log bytes.Buffer
		d := &daemon{Daemon: process.Daemon{Log: slog.New(slog.NewTextHandler(&log, nil))}}
		c := &config.Config{Apps: []config.App{{MaxConnections: test.toAPNs}}}
		c.Limits.Connections = test.connections
		if got := d.connections(c, test.files); got != test.want || strings.Contains(log.String(), "fewer files may be open") != test.said {
			t.Errorf("%+v: got %d, said %q", test, got, log.String())
		}
	}
}
