package diagnosis

import (
	"slices"

	pb "badgerelay/proto/badgerelay/v1"
)

// missingPart returns a mailbox that the mailbox's counts wait for; nil: there is none.
func (d *device) missingPart(f *Facts) *pb.PartReport {
	for _, p := range d.parts {
		if p.GetAwaited() && p.GetOrganization() == f.Report.GetOrganization() {
			return p
		}
	}
	return nil
}

// ofAnother reports whether the device shows another organization's counts alone.
func (d *device) ofAnother(f *Facts) bool {
	return slices.ContainsFunc(d.parts, func(p *pb.PartReport) bool {
		return p.GetOtherOrganization() && p.GetOrganization() == f.Report.GetOrganization()
	})
}

// sum returns the sum of a shared device's parts, as far as they are known, and whether
// APNs has accepted it.
func (d *device) sum() (sum uint32, accepted bool) {
	all := uint64(0)
	known := false
	accepted = d.shared
	for _, p := range d.parts {
		if !p.GetDisabled() && p.UnreadCount != nil {
			known = true
			all += uint64(p.GetUnreadCount())
			accepted = accepted && p.GetAccepted()
		}
	}
	return uint32(min(all, 1<<31-1)), known && accepted
}
