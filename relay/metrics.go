package relay

import (
	"github.com/prometheus/client_golang/prometheus"
)

// collector reads the relay's own counters when it is scraped, so that the hot
// path keeps no second set of books.
type collector struct {
	relay *Relay

	accepted, outcomes, pending         *prometheus.Desc
	mailboxes, idle, devices, shared    *prometheus.Desc
	streams, stops                      *prometheus.Desc
	queued, waiting, resent             *prometheus.Desc
	breaker, removed, registry, lookups *prometheus.Desc
	misconfigured, quarantined          *prometheus.Desc
	overBudget                          *prometheus.Desc
	settleLatency, pushLatency          *prometheus.Desc
}

func newCollector(r *Relay) *collector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, labels, nil)
	}
	return &collector{
		relay:         r,
		accepted:      desc("events_accepted_total", "Events accepted from agents."),
		outcomes:      desc("events_settled_total", "Events settled, by outcome.", "outcome"),
		pending:       desc("events_pending", "Events accepted and not settled: accepted = pending + the sum of settled, at every moment."),
		mailboxes:     desc("mailboxes", "Mailboxes known in memory."),
		idle:          desc("mailboxes_idle", "Mailboxes known in memory that have been quiet for a minute or more."),
		devices:       desc("devices", "Devices known in memory."),
		shared:        desc("devices_shared", "Devices on several mailboxes, at any relay, whose badge is the sum of their counts."),
		streams:       desc("agent_streams", "Open agent streams, unary calls included."),
		stops:         desc("process_stops_total", "Times the process was stopped, or its machine slept, for so long that every agent had to send again."),
		queued:        desc("devices_queued", "Devices that wait for a connection with room.", "app"),
		waiting:       desc("devices_waiting", "Devices that wait for a time: a retry, a pause, a probe in quarantine, or a shared device's window."),
		resent:        desc("pushes_resent_total", "Pushes sent again because APNs may not have processed them.", "app"),
		breaker:       desc("breaker_open", "1 while the app's outage breaker is open: only a push now and then tries.", "app"),
		removed:       desc("subscriptions_removed_total", "Subscriptions ended because APNs refused the device."),
		misconfigured: desc("app_misconfigured", "1 while APNs refuses nearly every device of the app: its environment, topic or credential is wrong.", "app"),
		quarantined:   desc("subscriptions_quarantined", "Subscriptions known in memory whose device APNs refuses with BadDeviceToken or DeviceTokenNotForTopic, and that are kept.", "app"),
		overBudget:    desc("removals_put_off_total", "Subscriptions not removed although APNs refused the device, because 5 % of the app's were within an hour.", "app"),
		registry:      desc("registry_failures_total", "Failed registry operations of the relay, retries included; it tries again."),
		lookups:       desc("subscription_lookups_total", "Mailboxes whose subscriptions were read from the registry; all other events were served from memory."),
		settleLatency: desc("event_settle_seconds", "Time from an event's receipt to its delivery."),
		pushLatency:   desc("event_push_seconds", "Time from an event's receipt to its push at the socket."),
	}
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(c, ch) }

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	counter := func(d *prometheus.Desc, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	r := c.relay
	ledger, stats := r.Ledger(), r.Stats()
	counter(c.accepted, ledger.Accepted)
	gauge(c.pending, float64(ledger.Pending))
	for o := range Outcomes {
		counter(c.outcomes, ledger.Outcomes[o], Outcome(o).String())
	}
	gauge(c.mailboxes, float64(stats.Mailboxes))
	gauge(c.idle, float64(stats.Idle))
	gauge(c.devices, float64(stats.Devices))
	gauge(c.shared, float64(stats.Shared))
	gauge(c.streams, float64(stats.Streams))
	counter(c.stops, r.pulse.stops.Load())
	gauge(c.waiting, float64(stats.Waiting))
	counter(c.registry, r.registryFailures.Load())
	counter(c.lookups, r.lookedUp.Load())
	c.collectApps(counter, gauge)
	r.refusals.mu.Lock()
	removed := r.refusals.removed
	r.refusals.mu.Unlock()
	counter(c.removed, removed)

	var settle, push histogram
	for i := range r.shards {
		sh := &r.shards[i]
		sh.mu.Lock()
		for b, n := range sh.counts.settle.counts {
			settle.counts[b] += n
		}
		settle.sum += sh.counts.settle.sum
		sh.mu.Unlock()
	}
	for b := range push.counts {
		push.counts[b] = r.pushLatency.counts[b].Load()
	}
	push.sum = r.pushLatency.sum.Load()
	ch <- settle.metric(c.settleLatency)
	ch <- r.exemplars.with(push.metric(c.pushLatency))
}

func (c *collector) collectApps(
	counter func(*prometheus.Desc, uint64, ...string),
	gauge func(*prometheus.Desc, float64, ...string),
) {
	for _, a := range c.relay.apps.all() {
		queue, health := a.queue.State(), a.currentHealth()
		gauge(c.queued, float64(queue.Waiting), a.name)
		counter(c.resent, queue.Resent, a.name)
		gauge(c.breaker, oneIf(queue.BreakerOpen), a.name)
		gauge(c.misconfigured, oneIf(health.Misconfigured), a.name)
		gauge(c.quarantined, float64(health.Quarantined), a.name)
		counter(c.overBudget, health.RemovalsPutOff, a.name)
	}
}

// oneIf returns 1 for true and 0 for false.
func oneIf(is bool) float64 {
	if is {
		return 1
	}
	return 0
}

// with adds the exemplars to their histogram.
func (e *exemplars) with(m prometheus.Metric) prometheus.Metric {
	var all []prometheus.Exemplar
	for i := range e {
		if x := e[i].Load(); x != nil {
			all = append(all, prometheus.Exemplar{
				Value: x.value.Seconds(), Labels: prometheus.Labels{"trace_id": x.traceID}, Timestamp: x.at,
			})
		}
	}
	if len(all) == 0 {
		return m
	}
	return prometheus.MustNewMetricWithExemplars(m, all...)
}

// metric returns the histogram in Prometheus' form, in seconds.
func (h *histogram) metric(d *prometheus.Desc) prometheus.Metric {
	cumulative := map[float64]uint64{}
	var count uint64
	for i, n := range h.counts {
		count += n
		if i < buckets-1 { // the last one is +Inf
			cumulative[bucketBound(i).Seconds()] = count
		}
	}
	return prometheus.MustNewConstHistogram(d, count, float64(h.sum)/1e9, cumulative)
}
