package registry

import (
	"context"
	"math"

	"badgerelay/relay"
)

// forget implements database: all is in tables that both have.
func (f *sqliteFile) forget(context.Context) error { return nil }

// forgetStep is how many entries of the index of devices a transaction goes through.
const forgetStep = 10_000

// forgetOrganization implements database. The index of devices still has entries of the
// organization. They are all over it, so it is gone through from one end to the other:
// to look each of them up would touch a page for each. What is in memory of them is
// left behind when that is merged.
func (f *sqliteFile) forgetOrganization(ctx context.Context, org relay.OrganizationID) error {
	for _, walk := range []struct{ position, table string }{{"device", "devices"}, {"rowid", "devices_log"}} {
		after := int64(math.MinInt64)
		for last := false; !last; {
			err := f.transact(ctx, func(t *tx, _ *sqliteConn) error {
				to := int64(math.MaxInt64)
				last = true
				err := t.each(`SELECT `+walk.position+` FROM `+walk.table+` WHERE `+walk.position+` > $1 ORDER BY 1 LIMIT 1 OFFSET $2`,
					[]any{after, int64(forgetStep)}, func(row scanner) error {
						last = false
						return row.Scan(&to)
					})
				if err != nil {
					return err
				}
				_, err = t.exec(`DELETE FROM `+walk.table+` WHERE organization_id = $1 AND `+walk.position+` > $2 AND `+walk.position+` <= $3`,
					int64(org), after, to)
				after = to
				return err
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}
