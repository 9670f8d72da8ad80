package registry

import (
	"context"
	"time"
)

// RemoveOrganization implements Registry. The rows stay, so that it costs the same
// whatever the organization had, and can be undone.
func (s *store) RemoveOrganization(ctx context.Context, name string) (err error) {
	defer s.done(ctx, opOrganizationWrite, time.Now(), &err)
	if name, err = NormalizeOrganization(name); err != nil {
		return err
	}
	var o Organization
	err = s.change(ctx, func(t *tx) (err error) {
		if o, err = t.lockOrganization(organizationByName, name); err != nil {
			return err
		}
		if err := t.changeSumsOf(o.ID, nil); err != nil {
			return err
		}
		_, err = t.exec(`UPDATE organizations SET enabled = false, removed_at = $1 WHERE id = $2`, t.now.UnixMilli(), int64(o.ID))
		t.organizationChanged(ChangeOrganizationRemoved, o)
		return err
	})
	if err == nil {
		s.changeRestOfSums(ctx, o.ID)
	}
	return err
}

// RestoreOrganization implements Registry.
func (s *store) RestoreOrganization(ctx context.Context, name string) (o Organization, err error) {
	defer s.done(ctx, opOrganizationWrite, time.Now(), &err)
	if name, err = NormalizeOrganization(name); err != nil {
		return Organization{}, err
	}
	err = s.change(ctx, func(t *tx) error {
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
