package rig

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/jackc/pgx/v5"

	"badgerelay/relay/registry/postgrestest"
)

// What a Config.Registry is. Empty is a file, too.
const (
	File     = "file"
	Postgres = "postgres" // a private server
)

// privateSettings are what a private server has beside a test's: it waits for
// the disk, as one in service does, and has memory for an index of some
// million devices.
var privateSettings = []string{"fsync=on", "full_page_writes=on", "shared_buffers=512MB", "max_wal_size=4GB", "max_connections=300"}

// MaxRelays is what the connections of a private server are enough for.
const MaxRelays = 16

// databaseName is one that every server has.
const databaseName = "postgres"

// database is a private PostgreSQL server.
type database struct {
	server  *postgrestest.Private
	standby *postgrestest.Private // nil: it has none
}

func newDatabase(standby bool) (d *database, err error) {
	d = &database{}
	if d.server, err = postgrestest.New(privateSettings...); err != nil {
		return nil, fmt.Errorf("start a private PostgreSQL: %w", err)
	}
	if standby {
		if d.standby, err = d.server.Standby(privateSettings...); err != nil {
			return nil, errors.Join(fmt.Errorf("start a standby: %w", err), d.close())
		}
	}
	return d, nil
}

// hold locks the subscriptions against writers for d. A database that is away
// is trouble enough.
func (d *database) hold(ctx context.Context, lasts time.Duration) {
	conn, err := pgx.Connect(ctx, postgrestest.URLOf(databaseName, d.servers()...)+"&target_session_attrs=read-write")
	if err != nil {
		return
	}
	defer conn.Close(context.WithoutCancel(ctx)) // it rolls back
	if _, err := conn.Exec(ctx, "BEGIN; LOCK TABLE subscriptions IN EXCLUSIVE MODE"); err == nil {
		Wait(ctx, lasts)
	}
}

// close ends the servers, in order, so that none of their processes is left.
func (d *database) close() error {
	var errs []error
	for _, server := range d.servers() {
		server.Stop()
		errs = append(errs, server.Close())
	}
	return errors.Join(errs...)
}

// DatabaseCPU returns the CPU time that the database's processes have used; 0: the
// registry is a file.
func (r *Rig) DatabaseCPU() time.Duration {
	if r.database == nil {
		return 0
	}
	return r.database.server.CPU()
}

// RegistrySize returns the bytes that the registry's subscriptions take, with
// their indexes; of a file, all of it.
func (r *Rig) RegistrySize(ctx context.Context) (n int64, err error) {
	if r.database == nil {
		info, err := os.Stat(r.registryPath())
		if err != nil {
			return 0, fmt.Errorf("look at the registry's size: %w", err)
		}
		return info.Size(), nil
	}
	conn, err := pgx.Connect(ctx, r.database.server.URL(databaseName))
	if err == nil {
		err = cmp.Or(conn.QueryRow(ctx, `SELECT pg_total_relation_size('subscriptions')`).Scan(&n), conn.Close(ctx))
	}
	if err != nil {
		return 0, fmt.Errorf("ask for the registry's size: %w", err)
	}
	return n, nil
}
