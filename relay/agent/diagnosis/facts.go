package diagnosis

import (
	"cmp"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	pb "badgerelay/proto/badgerelay/v1"
	"badgerelay/relay/agent/daemon"
)

// Facts are what is known of a mailbox.
type Facts struct {
	Mailbox string
	// Now is when they were gathered: times are told without the date on its day.
	Now time.Time
	// Report is what the relays say. nil: none could be asked, and RelayError says
	// why, with RelayReason as the contract's reason, if it was a refusal.
	Report                  *pb.MailboxReport
	RelayError, RelayReason string
	// Agent is what the organization's running agent says. nil: it was not asked, or
	// could not be, and AgentError says why.
	Agent      *daemon.MailboxReport
	AgentError string
	// Operator says that a relay's operator reads, who can't see the mail server.
	Operator bool
}

// device is a device of the mailbox as all relays together know it.
type device struct {
	app, token string
	live       *pb.SubscriptionReport // nil: the registry did not say
	shown      *pb.DeviceReport       // the one with the newest accepted badge; nil: no relay knows one
	waiting    *pb.DeviceReport       // the one that says best what is waited for; nil: nothing is
	relay      *pb.RelayReport        // of waiting
	refused    *pb.DeviceReport       // the one that knows of a refusal after which nothing waits; nil: none
	parts      []*pb.PartReport       // of a shared device; nil: it is not, or they are not known
	shared     bool
}

// devices returns the mailbox's devices, by app and token.
func (f *Facts) devices() []*device {
	byKey := map[[2]string]*device{}
	get := func(app, token string) *device {
		key := [2]string{app, token}
		if byKey[key] == nil {
			byKey[key] = &device{app: app, token: token}
		}
		return byKey[key]
	}
	for _, s := range f.Report.GetSubscriptions() {
		d := get(s.GetApp(), s.GetDeviceToken())
		d.live, d.shared = s, len(s.GetOtherMailboxes()) > 0
	}
	for _, r := range f.Report.GetRelays() {
		for _, s := range r.GetDevices() {
			if f.Report.GetRegistryError() == "" && byKey[[2]string{s.GetApp(), s.GetDeviceToken()}] == nil {
				continue // it has just left
			}
			d := get(s.GetApp(), s.GetDeviceToken())
			d.shared = d.shared || s.GetShared()
			if s.Badge != nil && (d.shown == nil || s.GetAcceptedAt().AsTime().After(d.shown.GetAcceptedAt().AsTime())) {
				d.shown = s
			}
			if s.GetWait() != pb.Wait_WAIT_UNSPECIFIED && (d.waiting == nil || saysMore(s, d.waiting)) {
				d.waiting, d.relay = s, r
			}
			if s.GetWait() == pb.Wait_WAIT_UNSPECIFIED && s.Badge == nil && s.GetReason() != "" {
				d.refused = s
			}
		}
	}
	for _, s := range f.Report.GetSharedDevices() {
		if d := byKey[[2]string{s.GetApp(), s.GetDeviceToken()}]; d != nil {
			d.parts = s.GetParts()
		}
	}
	all := make([]*device, 0, len(byKey))
	for _, d := range byKey {
		all = append(all, d)
	}
	slices.SortFunc(all, func(a, b *device) int { return cmp.Or(cmp.Compare(a.app, b.app), cmp.Compare(a.token, b.token)) })
	return all
}

// saysMore reports whether one of two relays says more of what a device waits for: the one
// that pushes its sum; where that is not told, as to agents, the one that does not wait for
// the other.
func saysMore(a, b *pb.DeviceReport) bool {
	if a.GetPusher() != b.GetPusher() {
		return a.GetPusher()
	}
	return b.GetWait() == pb.Wait_WAIT_SUM && a.GetWait() != pb.Wait_WAIT_SUM
}

// newest returns the newest count and the relay that has it; nil: none has one. Of those
// that came too long ago to be ordered it is the one at its agent's stream.
func (f *Facts) newest() (*pb.CountReport, *pb.RelayReport) {
	var count *pb.CountReport
	var at *pb.RelayReport
	for _, r := range f.Report.GetRelays() {
		c := r.GetCount()
		switch {
		case c == nil:
		case count == nil, received(c).After(received(count)), received(c).Equal(received(count)) && tells(r) && !tells(at):
			count, at = c, r
		}
	}
	return count, at
}

// tells reports whether the agent that told a relay its count has an active stream there.
func tells(r *pb.RelayReport) bool {
	return slices.ContainsFunc(r.GetStreams(), func(s *pb.AgentStreamReport) bool {
		return !s.GetStandby() && s.GetAgentId() == r.GetCount().GetAgentId()
	})
}

// pusher returns the relay whose pushes a device gets: where a count waits for it, else
// where the newest one is; nil: not known.
func (f *Facts) pusher(d *device) *pb.RelayReport {
	if d.waiting != nil {
		return d.relay
	}
	_, at := f.newest()
	return at
}

func received(c *pb.CountReport) time.Time {
	if c.GetReceivedAt() == nil {
		return time.Time{}
	}
	return c.GetReceivedAt().AsTime()
}

// stream is an agent's stream and where it is.
type stream struct {
	*pb.AgentStreamReport
	relay *pb.RelayReport
}

func (f *Facts) streams() (active, standby []stream) {
	for _, r := range f.Report.GetRelays() {
		for _, s := range r.GetStreams() {
			if s.GetStandby() {
				standby = append(standby, stream{s, r})
			} else {
				active = append(active, stream{s, r})
			}
		}
	}
	return active, standby
}

// lastEnd returns the newest of the ends of streams that the relays remember, each as of
// returns it; nil: there is none.
func (f *Facts) lastEnd(of func(*pb.RelayReport) *pb.AgentDeparture) (last *pb.AgentDeparture) {
	for _, r := range f.Report.GetRelays() {
		if d := of(r); d != nil && (last == nil || d.GetLeftAt().AsTime().After(last.GetLeftAt().AsTime())) {
			last = d
		}
	}
	return last
}

// started returns when the oldest process of the relays that answered started.
func (f *Facts) started() (first time.Time) {
	for _, r := range f.Report.GetRelays() {
		if at := r.GetStartedAt(); at != nil && (first.IsZero() || at.AsTime().Before(first)) {
			first = at.AsTime()
		}
	}
	return first
}

// answered returns the relays that could be asked, and silent the others.
func (f *Facts) answered() (answered, silent []*pb.RelayReport) {
	for _, r := range f.Report.GetRelays() {
		if r.GetError() == "" {
			answered = append(answered, r)
		} else {
			silent = append(silent, r)
		}
	}
	return answered, silent
}

// badge returns what APNs has accepted for the device; false: it is not known.
func (d *device) badge() (shows uint32, known bool) {
	if sum, accepted := d.sum(); accepted {
		return sum, true
	}
	return d.shown.GetBadge(), d.shown != nil
}

// since is when it was accepted, or what it is of received; nil: not known.
func (d *device) since() *timestamppb.Timestamp {
	if _, accepted := d.sum(); !accepted || d.shown.GetAcceptedAt() != nil {
		return d.shown.GetAcceptedAt()
	}
	var newest *timestamppb.Timestamp
	for _, p := range d.parts {
		if at := p.GetReceivedAt(); at != nil && (newest == nil || at.AsTime().After(newest.AsTime())) {
			newest = at
		}
	}
	return newest
}

// right reports whether APNs has accepted what the device is to show, as far as that
// is known.
func (d *device) right(count uint32) bool {
	switch {
	case d.waiting != nil:
		return false
	case d.shared && len(d.parts) > 0:
		_, accepted := d.sum()
		return accepted
	case d.shared:
		return d.shown != nil // its parts are not known
	}
	return d.shown != nil && d.shown.GetBadge() == count
}
