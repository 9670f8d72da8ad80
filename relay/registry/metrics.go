package registry

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// operation is a label of the metrics.
type operation int

const (
	opLookup operation = iota
	opRemove
	opRefuse
	opOrganizationRead
	opOrganizationWrite
	opCredentialRead
	opCredentialWrite
	opSubscribe
	opSetDevice
	opUnsubscribe
	opImport
	opRestore
	opList
	opMailboxes
	opScan
	opCounts
	opPurge
	opPresence
	opExchange
	opShared
	operations
)

var operationNames = [operations]string{
	"lookup", "remove", "refuse", "organization_read", "organization_write", "credential_read", "credential_write",
	"subscribe", "set_device", "unsubscribe", "import", "restore", "list", "mailboxes", "scan", "counts", "purge", "presence", "exchange", "shared_devices",
}

// metrics is what a registry counts; one array slot per label, so that no label
// is looked up at run time.
type metrics struct {
	seconds     [operations]prometheus.Observer
	unavailable [operations]prometheus.Counter
	putOff      prometheus.Gauge   // at the last purge
	unreadable  prometheus.Counter // rows that were passed over
}

// newMetrics registers the metrics; a nil r registers none.
func newMetrics(r prometheus.Registerer) (*metrics, error) {
	seconds := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "registry_operation_seconds",
		Help: "Duration of calls to the registry, the waiting for the writer's turn included.",
		// A look-up of one mailbox takes tens of microseconds, a commit about a
		// millisecond, an import seconds.
		Buckets: []float64{25e-6, 100e-6, 400e-6, 1.6e-3, 6.4e-3, 25e-3, 100e-3, 400e-3, 1.6, 6.4, 25},
	}, []string{"operation"})
	unavailable := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "registry_unavailable_total",
		Help: "Calls that failed because the database was gone, locked, full or read-only.",
	}, []string{"operation"})
	m := &metrics{putOff: prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "registry_expiries_put_off",
		Help: "Subscriptions whose lifetime had passed at the last purge and that are kept for now, because 5 % of their app's ended within an hour.",
	}), unreadable: prometheus.NewCounter(prometheus.CounterOpts{
		Name: "registry_unreadable_rows_total",
		Help: "Rows that were passed over because they can't be read, each time. See the log; restore them from a backup or delete them.",
	})}
	for op, name := range operationNames {
		m.seconds[op] = seconds.WithLabelValues(name)
		m.unavailable[op] = unavailable.WithLabelValues(name)
	}
	if r == nil {
		return m, nil
	}
	if err := r.Register(seconds); err != nil {
		return nil, err
	}
	if err := r.Register(unavailable); err != nil {
		return nil, err
	}
	if err := r.Register(m.unreadable); err != nil {
		return nil, err
	}
	return m, r.Register(m.putOff)
}

func (m *metrics) observe(op operation, start time.Time) {
	m.seconds[op].Observe(time.Since(start).Seconds())
}
