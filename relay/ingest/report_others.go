package ingest

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	pb "badgerelay/proto/badgerelay/v1"
	"badgerelay/relay"
	"badgerelay/relay/internal/service"
	"badgerelay/relay/registry"
)

// Inquiries asks the relays that share the registry what they have of a mailbox.
type Inquiries interface {
	// OnInquiry has fn answer what others ask; registry.Postgres says how.
	OnInquiry(fn func(context.Context, registry.Inquiry) (name string, answer []byte)) (cancel func())
	// Inquire returns the answers that came until enough says that these will do, or
	// until ctx is done.
	Inquire(ctx context.Context, q registry.Inquiry, enough func(map[string][]byte) bool) (map[string][]byte, error)
}

// inquiryPatience bounds the wait for another relay's answer, which takes
// milliseconds. Ours.
const inquiryPatience = 2 * time.Second

// listen answers other relays until cancel.
func (p *reporter) listen() (cancel func()) {
	if p.config.Inquiries == nil {
		return func() {}
	}
	return p.config.Inquiries.OnInquiry(func(ctx context.Context, q registry.Inquiry) (string, []byte) {
		if q.Relay == p.server.instance {
			return "", nil
		}
		answer, err := proto.Marshal(p.own(ctx, q.Organization, q.Mailbox))
		if err != nil {
			return "", nil // strings of ours that are no UTF-8: it is named as not answering
		}
		return p.config.Place, answer
	})
}

// others returns what the other relays have of a mailbox, by name. One that can't be
// asked is named with the reason; an error is that the registry does not name them.
func (p *reporter) others(ctx context.Context, org relay.OrganizationID, mailbox string) ([]*pb.RelayReport, error) {
	if p.config.Inquiries == nil || p.config.Others == nil {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, inquiryPatience)
	defer cancel()
	present, err := p.config.Others(ctx)
	if err != nil {
		return nil, err
	}
	var reports []*pb.RelayReport
	awaited := map[string]*pb.RelayReport{}
	for i := range present {
		one := &present[i]
		if one.Name == p.config.Place || one.Stopped {
			continue
		}
		r := &pb.RelayReport{Name: one.Name, Instance: service.PresenceStatus(one).GetInstance()}
		reports = append(reports, r)
		if one.Silence > service.SilentAfter {
			r.Error = fmt.Sprintf("it has not been heard of for %s", one.Silence.Round(time.Second))
			continue
		}
		awaited[one.Name] = r
	}
	if len(awaited) > 0 {
		p.inquire(ctx, registry.Inquiry{Relay: p.server.instance, Organization: org, Mailbox: mailbox}, awaited)
	}
	slices.SortFunc(reports, func(a, b *pb.RelayReport) int { return cmp.Compare(a.GetName(), b.GetName()) })
	return reports, nil
}

// inquire fills in the reports of relays, by name.
func (p *reporter) inquire(ctx context.Context, q registry.Inquiry, awaited map[string]*pb.RelayReport) {
	answers, err := p.config.Inquiries.Inquire(ctx, q, func(answers map[string][]byte) bool {
		for name := range awaited {
			if answers[name] == nil {
				return false
			}
		}
		return true
	})
	for name, r := range awaited {
		switch {
		case answers[name] != nil && proto.Unmarshal(answers[name], r) == nil:
		case err != nil:
			r.Error = "the registry, by which it is asked, does not answer"
		default:
			r.Present = true
			r.Error = "it did not answer within " + inquiryPatience.String()
		}
	}
}
