package memory

import (
	"context"

	"badgerelay/relay"
	"badgerelay/relay/registry"
)

// generation names one of an app.
type generation struct {
	app  string
	hash relay.Generation
}

// Refuse implements relay.Subscriptions.
func (h *Handle) Refuse(ctx context.Context, refusals []relay.Refusal) (judged []relay.Judgement, err error) {
	if len(refusals) == 0 {
		return nil, nil
	}
	var ids []relay.OrganizationID
	for i := range refusals {
		ids = append(ids, refusals[i].Key.Organization)
	}
	judged = make([]relay.Judgement, len(refusals))
	err = h.write(ctx, "refuse", func(t *transaction) error {
		for i := range refusals {
			judged[i] = t.refuse(&refusals[i])
		}
		return nil
	}, ids...)
	if err != nil {
		return nil, err
	}
	return judged, nil
}

func (t *transaction) refuse(f *relay.Refusal) relay.Judgement {
	o, at := t.known(f.Key.Organization), place{f.Key.Mailbox, installation{f.App, f.Device}}
	if o == nil || o.subscriptions[at] == nil {
		return relay.Judgement{Verdict: relay.RefusalSpares}
	}
	sub := o.subscriptions[at]
	j := t.budget(f.App).Limit(f, f.Judge(sub.Quarantine, sub.RegisteredAt, t.at), t.at)
	switch j.Verdict {
	case relay.RefusalHolds:
		changed := *sub // readers may have the old one
		changed.Quarantine = j.Quarantine
		o.subscriptions[at] = &changed
	case relay.RefusalRemoves:
		t.remove(relay.Removal{Key: f.Key, App: f.App, Device: f.Device, Reason: f.Reason})
	}
	return j
}

// budget returns how many of an app's subscriptions may end, of an hour that has
// begun.
func (t *transaction) budget(app string) *relay.Budget {
	if t.budgets == nil {
		t.budgets = map[string]*relay.Budget{}
	}
	b := t.budgets[app]
	if b == nil {
		b = new(relay.Budget)
		t.budgets[app] = b
	}
	if b.Renewed(t.at) {
		live := 0
		for _, o := range t.organizations {
			for at := range o.subscriptions {
				if at.app == app {
					live++
				}
			}
		}
		b.Renew(live)
	}
	return b
}

// ForgetRefusals implements relay.Subscriptions.
func (h *Handle) ForgetRefusals(ctx context.Context, subscribers []relay.Subscriber) error {
	var ids []relay.OrganizationID
	for _, s := range subscribers {
		ids = append(ids, s.Key.Organization)
	}
	return h.write(ctx, "forget refusals", func(t *transaction) error {
		for _, s := range subscribers {
			o, at := t.known(s.Key.Organization), place{s.Key.Mailbox, installation{s.App, s.Device}}
			if o == nil || o.subscriptions[at] == nil || o.subscriptions[at].Quarantine == nil {
				continue
			}
			changed := *o.subscriptions[at]
			changed.Quarantine = nil
			o.subscriptions[at] = &changed
			t.changes = append(t.changes, o.change(registry.ChangeSubscribed, s.Key.Mailbox))
		}
		return nil
	}, ids...)
}

// NoteAccepted implements relay.Subscriptions.
func (h *Handle) NoteAccepted(ctx context.Context, app string, hash relay.Generation, accepted int) (most int, err error) {
	err = h.write(ctx, "note accepted", func(t *transaction) error {
		if t.accepted == nil {
			t.accepted = map[generation]int{}
		}
		key := generation{app, hash}
		t.accepted[key] = max(t.accepted[key], accepted)
		most = t.accepted[key]
		return nil
	})
	return most, err
}
