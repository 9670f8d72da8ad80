package registry

import (
	"context"
	"errors"
	"time"
)

// RemoveOrganization implements Registry. The rows stay, so that it costs the same
// whatever the organization had, and can be undone.
func (s *store) RemoveOrganization(ctx context.Context, name string) (err error) {
	defer s.done(ctx, opOrganizationWrite, time.Now(), &err)
	if name, err = NormalizeOrganization(name); err != nil {
		return err
	}
	return s.db.write(ctx, func(t *tx) error {
		o, err := t.lockOrganization(organizationByName, name)
		if err != nil {
			return err
		}
		t.changeSumsOf(o)
		_, err = t.exec(`UPDATE organizations SET enabled = false, removed_at = $1 WHERE id = $2`, t.now.UnixMilli(), int64(o.ID))
		t.organizationChanged(ChangeOrganizationRemoved, o)
		return err
	})
}

// RestoreOrganization implements Registry.
func (s *store) RestoreOrganization(ctx context.Context, name string) (o Organization, err error) {
	defer s.done(ctx, opOrganizationWrite, time.Now(), &err)
	if name, err = NormalizeOrganization(name); err != nil {
		return Organization{}, err
	}
	err = s.db.write(ctx, func(t *tx) error {
		if o, err = t.lockOrganization(removedOrganization, name); err != nil {
			return err
		}
		o.RemovedAt = time.Time{}
		_, err = t.exec(`UPDATE organizations SET removed_at = NULL WHERE id = $1`, int64(o.ID))
		t.organizationChanged(ChangeOrganizationChanged, o)
		return err
	})
	if err != nil {
		return Organization{}, err
	}
	return o, nil
}

// PurgeOrganization implements Registry.
func (s *store) PurgeOrganization(ctx context.Context, name string) (err error) {
	defer s.done(ctx, opOrganizationWrite, time.Now(), &err)
	if name, err = NormalizeOrganization(name); err != nil {
		return err
	}
	return s.purgeOrganization(ctx, name)
}

// purgeOrganization deletes what is kept of a removed one. Nobody is told: when it
// was removed everybody was.
func (s *store) purgeOrganization(ctx context.Context, name string) error {
	return s.db.write(ctx, func(t *tx) error {
		o, err := t.lockOrganization(removedOrganization, name)
		if err != nil {
			return err
		}
		t.changeSumsOf(o)
		for _, table := range t.belongings {
			t.queue(statement{query: `DELETE FROM ` + table + ` WHERE organization_id = $1`, args: []any{int64(o.ID)}})
		}
		_, err = t.exec(`DELETE FROM organizations WHERE id = $1`, int64(o.ID)) // the rest goes by its foreign keys
		return err
	})
}

// purgeOrganizations forgets the removed ones whose retention has passed.
func (s *store) purgeOrganizations(ctx context.Context) error {
	before := s.clock.due().Add(-RemovedRetention).UnixMilli()
	var due []string
	err := s.query(ctx, `SELECT name FROM organizations WHERE removed_at <= $1`, []any{before}, func(row scanner) error {
		var name string
		err := row.Scan(&name)
		due = append(due, name)
		return err
	})
	if err != nil {
		return err
	}
	for _, name := range due {
		// Another relay, or an operator, may have been faster.
		if err := s.purgeOrganization(ctx, name); err != nil && !errors.Is(err, ErrOrganizationNotFound) {
			return err
		}
	}
	return nil
}
