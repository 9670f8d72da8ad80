package dovecot

import "github.com/prometheus/client_golang/prometheus"

// form is who wrote a notification.
type form uint8

const (
	formLua form = iota
	formOX

	forms // how many there are
)

// String returns the form's name, a metric label.
func (f form) String() string { return [forms]string{"lua", "ox"}[f] }

// result is what became of a notification. Its String is the metric label and
// the code of a refusal.
type result uint8

const (
	counted     result = iota // its count was handed on
	changed                   // the count is asked for
	otherFolder               // the folder's messages do not count
	wrongMethod               // the path is not for this method
	tooLarge                  // the body is larger than a notification can be
	malformed                 // the body is not what Dovecot sends
	invalid                   // the user can't be a mailbox

	starting // the agent does not take notifications yet

	results // how many there are
)

// String returns the result's name, one of a fixed set.
func (r result) String() string {
	return [results]string{"counted", "changed", "other_folder", "wrong_method", "too_large", "malformed", "invalid", "starting"}[r]
}

type metrics struct {
	notifications [forms][results]prometheus.Counter
}

func newMetrics(r prometheus.Registerer) *metrics {
	v := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "dovecot_notifications_total", Help: "Notifications from Dovecot, by form and by what became of them.",
	}, []string{"form", "result"})
	m := new(metrics)
	for f := range forms {
		for res := range results {
			m.notifications[f][res] = v.WithLabelValues(f.String(), res.String())
		}
	}
	if r != nil {
		r.MustRegister(v)
	}
	return m
}

func (m *metrics) count(f form, r result) { m.notifications[f][r].Inc() }
