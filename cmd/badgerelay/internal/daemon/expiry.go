package daemon

import (
	"context"
	"time"

	"badgerelay/cmd/internal/process"
)

const day = 24 * time.Hour

// marks are how long before its end a certificate is spoken of, the same as in
// Prometheus' rules.
var marks = []time.Duration{30 * day, 7 * day, day, 0}

// endsInterval is how often the ends are looked at. Ours; the last mark is a day.
const endsInterval = time.Hour

// watchEnds says once at each mark that a certificate comes near its end.
func (d *daemon) watchEnds(ctx context.Context) error {
	said := ends{}
	d.sayEnds(said)
	process.Every(ctx, endsInterval, func() { d.sayEnds(said) })
	return nil
}

func (d *daemon) sayEnds(said ends) {
	for _, name := range []string{"listen", "admin", "metadata"} {
		if leaf := d.certs.Leaf(name); leaf != nil {
			d.sayEnd(said, "listener "+name, leaf.NotAfter)
		}
	}
	for _, a := range d.apps.all() {
		if end := a.pool.Stats().CertificateEnd; !end.IsZero() {
			d.sayEnd(said, "app "+a.name, end)
		}
	}
}

func (d *daemon) sayEnd(said ends, of string, end time.Time) {
	left := time.Until(end)
	if !said.news(of, end, left) {
		return
	}
	log := d.Log.With("certificate", of, "ends_at", end.UTC(), "days_left", int(left/day))
	switch {
	case left <= 0:
		log.Error("certificate has ended; put a new one in its place and send SIGHUP")
	case left <= day:
		log.Error("certificate ends within a day; put a new one in its place and send SIGHUP")
	default:
		log.Warn("certificate is near its end; put a new one in its place and send SIGHUP")
	}
}

// ends is which mark of a certificate was spoken of last; another end is
// another certificate.
type ends map[string]spoken

type spoken struct {
	end  time.Time
	mark int
}

// news notes the mark that has been passed, and reports whether it is a new one.
func (e ends) news(of string, end time.Time, left time.Duration) bool {
	mark := 0 // how many have been passed
	for _, m := range marks {
		if left <= m {
			mark++
		}
	}
	was := e[of]
	e[of] = spoken{end, mark}
	return mark > 0 && (mark != was.mark || !end.Equal(was.end))
}
