package registry

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"badgerelay/relay"
)

// Refuse implements relay.Subscriptions.
func (s *store) Refuse(ctx context.Context, refusals []relay.Refusal) (judged []relay.Judgement, err error) {
	if len(refusals) == 0 {
		return nil, nil
	}
	defer s.done(ctx, opRefuse, time.Now(), &err)
	judged = make([]relay.Judgement, len(refusals))
	for first := 0; first < len(refusals); first += removeBatch {
		part := refusals[first:min(len(refusals), first+removeBatch)]
		err := s.writeWithBudgets(ctx, func(t *tx, b *budgets) error { return t.refuse(part, judged[first:], b) })
		if err != nil {
			return nil, err
		}
	}
	return judged, nil
}

// refuse judges refusals and does what follows.
func (t *tx) refuse(refusals []relay.Refusal, judged []relay.Judgement, b *budgets) error {
	endings := make([]*ending, len(refusals))
	for i := range refusals {
		f := &refusals[i]
		endings[i] = &ending{Removal: relay.Removal{Key: f.Key, App: f.App, Device: f.Device, Reason: f.Reason}}
	}
	orgs, live, err := t.findEndings(endings)
	if err != nil {
		return err
	}
	remembered := newTable(quarantineColumns, 0)
	for _, i := range byApp(endings) {
		e := endings[i]
		if !e.found {
			continue // RefusalSpares is the zero value
		}
		had, _ := decodeQuarantine(e.quarantine) // one that can't be read is none, and written anew
		f := &refusals[i]
		j := f.Judge(had, fromMillis(e.registered), t.due)
		if j.Verdict == relay.RefusalRemoves && !f.Device.Impossible() {
			budget, err := b.of(t, f.App)
			if err != nil {
				return err
			}
			j = budget.Limit(f, j, t.due)
		}
		judged[i] = j
		if e.found = j.Verdict == relay.RefusalRemoves; j.Verdict == relay.RefusalHolds {
			remembered.add(int64(e.Key.Organization), []byte(e.Key.Mailbox), []byte(e.App), e.Device.AppendRaw(nil), encodeQuarantine(j.Quarantine))
		}
	}
	t.over(remembered, setQuarantine)
	t.endFound(endings, orgs, live, true)
	return nil
}

var quarantineColumns = newColumns("organization_id bigint", "mailbox bytea", "app bytea", "token bytea", "quarantine bytea")

const setQuarantine = `UPDATE subscriptions SET quarantine = k.quarantine FROM k WHERE subscriptions.organization_id = k.organization_id
	AND subscriptions.mailbox = k.mailbox AND subscriptions.app = k.app AND subscriptions.token = k.token`

// ForgetRefusals implements relay.Subscriptions.
func (s *store) ForgetRefusals(ctx context.Context, subscribers []relay.Subscriber) (err error) {
	if len(subscribers) == 0 {
		return nil
	}
	defer s.done(ctx, opRefuse, time.Now(), &err)
	for first := 0; first < len(subscribers); first += removeBatch {
		part := subscribers[first:min(len(subscribers), first+removeBatch)]
		if err := s.change(ctx, func(t *tx) error { return t.forgetRefusals(part) }); err != nil {
			return err
		}
	}
	return nil
}

// forgetRefusals tells it like a registration: other relays remember the refusals too.
func (t *tx) forgetRefusals(subscribers []relay.Subscriber) error {
	found := make([]*ending, len(subscribers))
	for i, who := range subscribers {
		found[i] = &ending{Removal: relay.Removal{Key: who.Key, App: who.App, Device: who.Device}}
	}
	orgs, _, err := t.findEndings(found)
	if err != nil {
		return err
	}
	forgotten := newTable(quarantineColumns, 0)
	for _, e := range found {
		o := orgs[e.Key.Organization]
		if !e.found || len(e.quarantine) == 0 {
			continue
		}
		forgotten.add(int64(o.ID), []byte(e.Key.Mailbox), []byte(e.App), e.Device.AppendRaw(nil), encodeQuarantine(nil))
		t.changes = append(t.changes, Change{Kind: ChangeSubscribed, Organization: o.ID, OrganizationName: o.Name,
			Mailbox: e.Key.Mailbox, Live: true})
	}
	t.over(forgotten, setQuarantine)
	return nil
}

// NoteAccepted implements relay.Subscriptions.
func (s *store) NoteAccepted(ctx context.Context, app string, generation relay.Generation, accepted int) (most int, err error) {
	defer s.done(ctx, opRefuse, time.Now(), &err)
	err = s.change(ctx, func(t *tx) error {
		t.begun()
		_, err := t.exec(`INSERT INTO app_generations (app, generation, accepted) VALUES ($1, $2, $3) ON CONFLICT (app, generation) DO UPDATE
			SET accepted = excluded.accepted WHERE app_generations.accepted < excluded.accepted`, []byte(app), int64(generation), int64(accepted))
		if err != nil {
			return err
		}
		return t.each(`SELECT accepted FROM app_generations WHERE app = $1 AND generation = $2`, []any{[]byte(app), int64(generation)},
			func(row scanner) error {
				var n int64
				err := row.Scan(&n)
				most = int(n)
				return err
			})
	})
	return most, err
}

// endWithinBudget ends subscriptions as far as their apps' budgets go, and returns
// how many were kept.
func (s *store) endWithinBudget(ctx context.Context, removals []relay.Removal) (kept int, err error) {
	err = s.writeWithBudgets(ctx, func(t *tx, b *budgets) error {
		kept = 0
		endings := make([]*ending, len(removals))
		for i := range removals {
			endings[i] = &ending{Removal: removals[i]}
		}
		orgs, live, err := t.findEndings(endings)
		if err != nil {
			return err
		}
		for _, i := range byApp(endings) {
			e := endings[i]
			if !e.found {
				continue
			}
			budget, err := b.of(t, e.App)
			if err != nil {
				return err
			}
			if e.found = budget.Take(1, t.due) > 0; !e.found {
				kept++
			}
		}
		t.endFound(endings, orgs, live, true)
		return nil
	})
	return kept, err
}

// byApp returns positions in the order in which apps' budgets are locked, so that
// two relays don't wait for each other.
func byApp(endings []*ending) []int {
	order := make([]int, len(endings))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(endings[a].App, endings[b].App) })
	return order
}

// budgets are those of the apps that a transaction removes subscriptions of.
type budgets struct {
	live map[string]int // by app: how many subscriptions there are, as far as they were counted
	used map[string]*relay.Budget
}

// uncountedError asks for an app's subscriptions to be counted, which may take
// long, before the transaction is tried again.
type uncountedError struct{ app string }

func (e *uncountedError) Error() string { return "subscriptions of an app are not counted" }

// writeWithBudgets runs fn in a transaction that takes from budgets.
func (s *store) writeWithBudgets(ctx context.Context, fn func(*tx, *budgets) error) error {
	live := map[string]int{}
	for {
		err := s.change(ctx, func(t *tx) error {
			b := &budgets{live: live, used: map[string]*relay.Budget{}}
			if err := fn(t, b); err != nil {
				return err
			}
			return b.keep(t)
		})
		missing, uncounted := errors.AsType[*uncountedError](err)
		if !uncounted {
			return err
		}
		if live[missing.app], err = s.countOf(ctx, missing.app); err != nil {
			return err
		}
	}
}

// countOf counts an app's subscriptions. It reads through all of them, once an
// hour in which some end.
func (s *store) countOf(ctx context.Context, app string) (n int, err error) {
	err = s.query(ctx, `SELECT count(*) FROM subscriptions WHERE app = $1`, []any{[]byte(app)}, func(row scanner) error {
		var count int64
		err := row.Scan(&count)
		n = int(count)
		return err
	})
	return n, err
}

// of returns an app's budget, of an hour that has begun. The row is locked until
// the end.
func (b *budgets) of(t *tx, app string) (*relay.Budget, error) {
	if budget := b.used[app]; budget != nil {
		return budget, nil
	}
	if _, err := t.exec(`INSERT INTO removal_budgets (app, allowed, used, last_at) VALUES ($1, 0, 0, 0) ON CONFLICT DO NOTHING`, []byte(app)); err != nil {
		return nil, fmt.Errorf("begin budget: %w", err)
	}
	budget := new(relay.Budget)
	err := t.each(`SELECT allowed, used, last_at FROM removal_budgets WHERE app = $1`+t.lock, []any{[]byte(app)}, func(row scanner) error {
		var allowed, used, last int64
		err := row.Scan(&allowed, &used, &last)
		*budget = relay.Budget{Allowed: int(allowed), Used: int(used), LastAt: fromMillis(last)}
		return err
	})
	if err != nil {
		return nil, err
	}
	if budget.Renewed(t.due) {
		live, counted := b.live[app]
		if !counted {
			return nil, &uncountedError{app}
		}
		budget.Renew(live)
	}
	b.used[app] = budget
	return budget, nil
}

// keep queues the writing of what was taken.
func (b *budgets) keep(t *tx) error {
	for app, budget := range b.used {
		t.queue(statement{query: `UPDATE removal_budgets SET allowed = $2, used = $3, last_at = $4 WHERE app = $1`,
			args: []any{[]byte(app), int64(budget.Allowed), int64(budget.Used), budget.LastAt.UnixMilli()}})
	}
	return t.flush()
}
