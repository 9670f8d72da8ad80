package diagnosis

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	pb "badgerelay/proto/badgerelay/v1"
)

// Short is a device token as people compare it: its first 8 digits.
func Short(token string) string {
	if len(token) <= 8 {
		return token
	}
	return token[:8] + "..."
}

// clock is a time in UTC, without the date where it is today's.
func (f *Facts) clock(at *timestamppb.Timestamp) string {
	if at == nil {
		return "an unknown time"
	}
	return f.clockAt(at.AsTime())
}

func (f *Facts) clockAt(at time.Time) string {
	if at.IsZero() {
		return "an unknown time"
	}
	at = at.UTC()
	if at.Format(time.DateOnly) == f.Now.UTC().Format(time.DateOnly) {
		return at.Format("15:04:05Z")
	}
	return at.Format("2006-01-02 15:04:05Z")
}

// receivedAt is when a count came, as far as the relay remembers.
func (f *Facts) receivedAt(c *pb.CountReport) string {
	if c.GetReceivedAt() == nil {
		return "more than ten minutes ago"
	}
	return f.clock(c.GetReceivedAt())
}

// reportedAt is now by the relays' clocks, whose times a report has.
func (f *Facts) reportedAt() time.Time {
	if at := f.Report.GetReportedAt(); at != nil {
		return at.AsTime()
	}
	return f.Now
}

// sinceStart is how long ago the oldest relay's process started.
func (f *Facts) sinceStart() string { return span(f.reportedAt().Sub(f.started())) }

// since is how long ago something was.
func (f *Facts) since(at *timestamppb.Timestamp) string {
	if at == nil {
		return "at an unknown time"
	}
	return span(f.reportedAt().Sub(at.AsTime())) + " ago"
}

// span is a duration in its greatest unit.
func span(d time.Duration) string {
	switch d = max(d, 0); {
	case d < 2*time.Minute:
		return fmt.Sprintf("%d s", d/time.Second)
	case d < 2*time.Hour:
		return fmt.Sprintf("%d min", d/time.Minute)
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h", d/time.Hour)
	}
	return fmt.Sprintf("%d days", d/(24*time.Hour))
}

func relayName(r *pb.RelayReport) string {
	return "relay " + cmp.Or(r.GetName(), r.GetInstance(), "unknown")
}

// shortName is a relay's in a table.
func shortName(r *pb.RelayReport) string { return strings.TrimPrefix(relayName(r), "relay ") }

// number says how many devices.
func number(n int) string {
	switch n {
	case 1:
		return "its device"
	case 2:
		return "both devices"
	}
	return fmt.Sprintf("all %d devices", n)
}

func plural(n int) string {
	if n == 1 {
		return ""
	}
	return "s"
}

// either is one of some names, of which there is one at least, and both is all of them.
func either(names []string) string { return listed(names, " or ") }
func both(names []string) string   { return listed(names, " and ") }

func listed(names []string, last string) string {
	names = visible(names)
	n := len(names) - 1
	if n == 0 {
		return names[0]
	}
	return strings.Join(names[:n], ", ") + last + names[n]
}

// visible returns names with those in quotes that begin or end with a space, which nobody
// would see.
func visible(names []string) []string {
	names = slices.Clone(names)
	for i, name := range names {
		if strings.TrimSpace(name) != name {
			names[i] = strconv.Quote(name)
		}
	}
	return names
}
