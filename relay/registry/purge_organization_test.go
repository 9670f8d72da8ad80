package registry

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"badgerelay/relay"
	"badgerelay/relay/registry/postgrestest"
)

// portioned counts transactions, and fails once in place of one.
type portioned struct {
	database
	writes, failAt int
}

var errEnded = errors.New("ended here")

func (p *portioned) write(ctx context.Context, fn func(*tx) error) error {
	if p.writes++; p.writes == p.failAt {
		return errEnded
	}
	return p.database.write(ctx, fn)
}

// eachStore runs a test with a new registry of each kind.
func eachStore(t *testing.T, test func(t *testing.T, s *store)) {
	t.Run("SQLite", func(t *testing.T) {
		s := open(t, SQLiteConfig{Path: newPath(t)})
		s.index.least = 60 // most go to the large table
		test(t, s.store)
	})
	t.Run("PostgreSQL", func(t *testing.T) {
		server := postgrestest.Start(t)
		p, err := OpenPostgres(t.Context(), PostgresConfig{URL: server.URL(server.Database())})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = p.Close() })
		test(t, p.store)
	})
}

// rowsOf returns how many rows of an organization are left in tables.
func (s *store) rowsOf(t *testing.T, org relay.OrganizationID, tables ...string) (left []int) {
	t.Helper()
	for _, table := range tables {
		err := s.query(t.Context(), `SELECT count(*) FROM `+table+` WHERE organization_id = $1`, []any{int64(org)}, func(row scanner) error {
			var n int
			err := row.Scan(&n)
			left = append(left, n)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return left
}

// TestPurgeOrganizationInParts purges one that takes several transactions, is ended
// before each of them, and goes on. Whatever is left meanwhile, it does not come back.
func TestPurgeOrganizationInParts(t *testing.T) {
	eachStore(t, func(t *testing.T, s *store) {
		s.purgeRows = 30
		devices, removed := 2*s.purgeRows+10, s.purgeRows+1
		ctx := t.Context()
		p := &portioned{database: s.db}
		s.db = p
		tables := []string{"subscriptions", "removed_subscriptions", "shared_parts"}
		if _, ok := p.database.(*sqliteFile); ok {
			tables = append(tables, "devices", "devices_log")
		}
		fill := func(name string) relay.OrganizationID {
			t.Helper()
			o, err := s.AddOrganization(ctx, NewOrganization{Name: name})
			if err != nil {
				t.Fatal(err)
			}
			rs := make([]Registration, devices+removed)
			gone := make([]relay.Removal, removed)
			for i := range rs {
				rs[i] = registration(i)
				if i < removed {
					gone[i] = relay.Removal{Key: relay.MailboxKey{Organization: o.ID, Mailbox: rs[i].Mailbox}, App: rs[i].App, Device: rs[i].Device, Reason: "Unregistered"}
				}
			}
			if _, err := s.ImportSubscriptions(ctx, o.ID, rs); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Remove(ctx, gone); err != nil {
				t.Fatal(err)
			}
			return o.ID
		}
		stays := fill("stays.com")
		before := s.rowsOf(t, stays, tables...)
		for i, n := range before {
			if n == 0 && tables[i] != "shared_parts" && tables[i] != "devices_log" { // which are filled elsewhere
				t.Fatalf("there is nothing in %s", tables[i])
			}
		}
		for failAt := 2; ; failAt++ {
			org := fill("gone.com")
			if err := s.RemoveOrganization(ctx, "gone.com"); err != nil {
				t.Fatal(err)
			}
			p.writes, p.failAt = 0, failAt
			err := s.PurgeOrganization(ctx, "gone.com")
			if err == nil {
				if p.writes < 7 {
					t.Errorf("it took %d transactions for %d rows, want some for each %d", p.writes, devices+removed, s.purgeRows)
				}
				break
			}
			if !errors.Is(err, errEnded) {
				t.Fatal(err)
			}
			if _, err := s.RestoreOrganization(ctx, "gone.com"); !errors.Is(err, ErrOrganizationNotFound) {
				t.Errorf("ended before transaction %d: a half organization is restored: %v", failAt, err)
			}
			if list, _, err := s.ListOrganizations(ctx, OrganizationFilter{Removed: true}, Page{}); err != nil || len(list) > 0 {
				t.Errorf("ended before transaction %d: a half organization is listed: %+v, %v", failAt, list, err)
			}
			if _, err := s.AddOrganization(ctx, NewOrganization{Name: "gone.com"}); !errors.Is(err, ErrOrganizationRemoved) {
				t.Errorf("ended before transaction %d: its name is given again: %v", failAt, err)
			}
			if failAt%2 == 0 {
				err = s.PurgeOrganization(ctx, "gone.com")
			} else {
				err = s.purge(ctx)
			}
			if err != nil {
				t.Errorf("ended before transaction %d: it does not go on: %v", failAt, err)
			}
			if left := s.rowsOf(t, org, tables...); slices.Max(left) > 0 {
				t.Errorf("ended before transaction %d: %v rows of %v are left", failAt, left, tables)
			}
		}
		if after := s.rowsOf(t, stays, tables...); !slices.Equal(before, after) {
			t.Errorf("of the other organization %v rows of %v are left, want %v", after, tables, before)
		}
		if c, err := s.Counts(ctx); err != nil || c.Organizations != 1 || c.Subscriptions != uint64(devices) {
			t.Errorf("got %+v, %v; want the other organization as it was", c, err)
		}
	})
}

// TestSumsOfAnOrganizationChangeInParts disables an organization with more shared
// devices than go in a transaction, and is ended in between.
func TestSumsOfAnOrganizationChangeInParts(t *testing.T) {
	eachStore(t, func(t *testing.T, s *store) {
		const devices = 2*removeBatch + 100
		ctx := t.Context()
		p := &portioned{database: s.db}
		s.db = p
		x := relay.ExchangeRequest{Relay: "a"}
		for i, name := range []string{"a.com", "b.com"} {
			o, err := s.AddOrganization(ctx, NewOrganization{Name: name})
			if err != nil {
				t.Fatal(err)
			}
			rs := make([]Registration, devices)
			for j := range rs {
				rs[j] = registration(j)
				if i == 0 {
					x.Devices = append(x.Devices, relay.SharedUpdate{DeviceKey: relay.DeviceKey{App: rs[j].App, Device: rs[j].Device}})
				}
			}
			if _, err := s.ImportSubscriptions(ctx, o.ID, rs); err != nil {
				t.Fatal(err)
			}
		}
		sequences := func() (all []uint64) {
			t.Helper()
			if err := s.query(ctx, `SELECT sequence FROM shared_devices ORDER BY app, token`, nil, func(row scanner) error {
				var n uint64
				err := row.Scan(&n)
				all = append(all, n)
				return err
			}); err != nil {
				t.Fatal(err)
			}
			return all
		}
		changed := func(before, after []uint64) (n int) {
			for i := range before {
				if after[i] > before[i] {
					n++
				}
			}
			return n
		}
		if _, err := s.Exchange(ctx, x); err != nil {
			t.Fatal(err)
		}
		disabled := false
		for failAt, step := range map[int]struct {
			do   func() error
			done int // sums changed before it was ended
		}{
			2: {func() error {
				_, err := s.UpdateOrganization(ctx, "a.com", OrganizationUpdate{Enabled: &disabled})
				return err
			}, removeBatch},
			3: {func() error { return s.RemoveOrganization(ctx, "b.com") }, 2 * removeBatch},
		} {
			t.Run(fmt.Sprint("ended before ", failAt), func(t *testing.T) {
				before := sequences()
				p.writes, p.failAt = 0, failAt
				if err := step.do(); err != nil {
					t.Errorf("what was asked for is kept, and the rest is no failure of it: %v", err)
				}
				if n := changed(before, sequences()); n != step.done {
					t.Errorf("%d sums changed, want %d until then", n, step.done)
				}
				if err := s.changeSumsLeft(ctx); err != nil {
					t.Error(err)
				}
				after := sequences()
				if n := changed(before, after); n != devices {
					t.Errorf("%d sums changed in the end, want all %d", n, devices)
				}
				if err := s.changeSumsLeft(ctx); err != nil || changed(after, sequences()) > 0 {
					t.Errorf("sums changed once more, or %v", err)
				}
			})
		}
	})
}
