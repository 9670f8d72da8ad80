package process

import (
	"runtime"

	"github.com/prometheus/client_golang/prometheus"
)

// RefusedGuests counts the connections that the listener of a metadata document turned
// away.
func RefusedGuests() prometheus.Counter {
	return prometheus.NewCounter(prometheus.CounterOpts{
		Name: "metadata_connections_refused_total", Help: "Connections to the metadata document turned away because too many came from their address: it may have 16 open, make 100 at once and 10 a second.",
	})
}

// BuildInfo is a metric that says what is running.
func BuildInfo(version string) prometheus.Collector {
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "build_info", Help: "1; the labels say what is running.",
		ConstLabels: prometheus.Labels{"version": version, "go": runtime.Version()},
	})
	info.Set(1)
	return info
}
