package ingest

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strconv"
	"time"

	pb "badgerelay/proto/badgerelay/v1"
	"badgerelay/relay"
	"badgerelay/relay/internal/service"
	"badgerelay/relay/registry"
)

// readShared adds the parts of the mailbox's shared devices.
func (p *reporter) readShared(ctx context.Context, key relay.MailboxKey, r *pb.MailboxReport, asOrganization bool) error {
	devices, err := p.server.registry.SharedDevicesOf(ctx, key)
	if err != nil {
		return err
	}
	now := time.Now()
	organizations := map[relay.OrganizationID]registry.Organization{
		key.Organization: {Name: r.GetOrganization(), Enabled: !r.GetOrganizationDisabled()},
	}
	for i := range devices {
		d := &devices[i]
		if asOrganization {
			own := d.Own(key.Organization)
			d = &own
		}
		m := &pb.SharedDeviceReport{App: d.App, DeviceToken: d.Device.Hex()}
		for j := range d.Parts {
			part := &d.Parts[j]
			o, known := organizations[part.Key.Organization]
			if !known {
				o, err = p.server.registry.OrganizationByID(ctx, part.Key.Organization)
				if err != nil && !errors.Is(err, registry.ErrOrganizationNotFound) { // else its part is about to go
					return err
				}
				organizations[part.Key.Organization] = o
			}
			m.Parts = append(m.Parts, partReport(d, part, o, now))
		}
		r.SharedDevices = append(r.SharedDevices, m)
	}
	return nil
}

func partReport(d *relay.SharedDevice, p *relay.Part, of registry.Organization, now time.Time) *pb.PartReport {
	m := &pb.PartReport{
		Organization: of.Name, Mailbox: p.Key.Mailbox, Accepted: d.Delivered(p), Awaited: p.Awaited(now),
		Disabled: p.Disabled, OtherOrganization: p.Disabled && of.Enabled && of.RemovedAt.IsZero(),
	}
	if count, reported := p.Newest(); reported {
		m.UnreadCount, m.ReceivedAt = &count, service.Time(p.ReceivedAt)
	}
	return m
}

// keepOwn leaves in a report what its organization may know: nothing by which the
// mailboxes of other organizations show that share its devices, not that there are
// any, and nothing of the operator's machines.
func keepOwn(r *pb.MailboxReport) {
	if r.GetRegistryError() != "" {
		r.RegistryError = "it does not answer"
	}
	numberRelays(r.GetRelays())
	for _, one := range r.GetRelays() {
		if one.GetNotReadyReason() != "" {
			one.NotReadyReason = "it takes no work"
		}
		one.Apps = slices.DeleteFunc(one.GetApps(), func(a *pb.AppReport) bool {
			return !slices.ContainsFunc(r.GetSubscriptions(), func(s *pb.SubscriptionReport) bool { return s.GetApp() == a.GetName() })
		})
		for _, a := range one.GetApps() {
			a.LastError = ""
		}
		for _, d := range one.GetDevices() {
			keepOwnBadge(r, one, d)
		}
	}
	r.SharedDevices = slices.DeleteFunc(r.GetSharedDevices(), func(s *pb.SharedDeviceReport) bool {
		told := slices.ContainsFunc(s.GetParts(), (*pb.PartReport).GetOtherOrganization) // by its events' outcomes
		return len(s.GetParts()) < 2 && !told
	})
}

// numberRelays calls each relay by its place among their names, which tell of the
// operator's machines and addresses.
func numberRelays(relays []*pb.RelayReport) {
	byName := slices.SortedFunc(slices.Values(relays), func(a, b *pb.RelayReport) int { return cmp.Compare(a.GetName(), b.GetName()) })
	for i, one := range byName {
		one.Name = strconv.Itoa(i + 1)
	}
}

// keepOwnBadge has a device look as if the organization's own mailboxes were all that it
// is on. What it shows is then what APNs accepted of the events of the one mailbox, or
// the sum of several: other organizations cause pushes that it would not have had.
func keepOwnBadge(r *pb.MailboxReport, at *pb.RelayReport, d *pb.DeviceReport) {
	i := slices.IndexFunc(r.GetSharedDevices(), func(s *pb.SharedDeviceReport) bool {
		return s.GetApp() == d.GetApp() && s.GetDeviceToken() == d.GetDeviceToken()
	})
	var parts []*pb.PartReport
	if i >= 0 {
		parts = r.GetSharedDevices()[i].GetParts()
	}
	several := d.GetShared() && len(parts) > 1
	sum, accepted, newest := ownSum(parts)
	if d.GetShared() {
		held := d.GetWait() == pb.Wait_WAIT_QUARANTINE || d.GetWait() == pb.Wait_WAIT_SUBSCRIPTIONS // by what APNs said of its own events
		if !held && (accepted || !several && !at.GetCount().GetPending()) {
			d.Wait, d.WaitUntil = pb.Wait_WAIT_UNSPECIFIED, nil
		}
		if d.Wanted = &sum; i < 0 {
			d.Wanted = nil
		}
	}
	d.Badge, d.AcceptedAt = d.AcceptedCount, d.CountAcceptedAt
	if several {
		d.Badge, d.AcceptedAt = nil, nil
	}
	if several && accepted {
		d.Badge, d.AcceptedAt = &sum, service.Time(newest)
	}
	d.AcceptedCount, d.CountAcceptedAt, d.Pusher, d.Shared = nil, nil, false, several
	if d.GetWait() != pb.Wait_WAIT_PAUSE && d.GetWait() != pb.Wait_WAIT_RETRY {
		d.Reason, d.RefusedAt = "", nil // which a push for another may have met
	}
	if d.GetWait() == pb.Wait_WAIT_UNSPECIFIED {
		d.Wanted = nil
		return
	}
	// What a part was before is not kept, so that it would show that there are others.
	d.Badge, d.AcceptedAt = nil, nil
}

// ownSum returns the sum of parts, and whether APNs accepted all that are known; newest is
// when the last was received.
func ownSum(parts []*pb.PartReport) (sum uint32, accepted bool, newest time.Time) {
	all := uint64(0)
	known := false
	accepted = true
	for _, p := range parts {
		if at := p.GetReceivedAt(); at != nil && at.AsTime().After(newest) {
			newest = at.AsTime()
		}
		if p.GetDisabled() || p.UnreadCount == nil {
			continue
		}
		known = true
		all += uint64(p.GetUnreadCount())
		accepted = accepted && p.GetAccepted()
	}
	return uint32(min(all, relay.MaxUnread)), known && accepted, newest
}
