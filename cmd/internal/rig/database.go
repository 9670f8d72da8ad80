package rig

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"badgerelay/relay/registry/postgrestest"
)

// Postgres is a Config.Registry that asks for a private server.
const Postgres = "postgres"

// privateSettings are what a private server has beside a test's: it waits for
// the disk, as one in service does, and has memory for an index of some
// million devices.
var privateSettings = []string{"fsync=on", "full_page_writes=on", "shared_buffers=512MB", "max_wal_size=4GB", "max_connections=300"}

// MaxRelays is what the connections of a private server are enough for.
const MaxRelays = 16

// database is a PostgreSQL database of the rig's own.
type database struct {
	server  *postgrestest.Private // nil: somebody else's
	standby *postgrestest.Private // of server; nil: it has none
	admin   string                // URL of another database of that server
	name    string
	url     string
}

// CheckRegistry returns an error if a Config.Registry can't be meant.
func CheckRegistry(registry string) error {
	if registry == "" || registry == Postgres {
		return nil
	}
	u, err := url.Parse(registry)
	if err != nil || u.Scheme != "postgres" && u.Scheme != "postgresql" {
		return errors.New("it is " + Postgres + " or begins with postgres://")
	}
	return nil
}

// newDatabase makes a database on the server, whose own ones are not touched.
func newDatabase(registry string, standby bool) (d *database, err error) {
	d = &database{admin: registry, name: "badgerig_" + strings.ToLower(rand.Text()[:10])}
	if registry == Postgres {
		if d.server, err = postgrestest.New(privateSettings...); err != nil {
			return nil, fmt.Errorf("start a private PostgreSQL: %w", err)
		}
		d.admin = d.server.URL("postgres")
	}
	if standby {
		if d.standby, err = d.server.Standby(privateSettings...); err != nil {
			return nil, errors.Join(fmt.Errorf("start a standby: %w", err), d.stop())
		}
	}
	u, err := url.Parse(d.admin)
	if err == nil {
		err = d.exec(d.admin, "CREATE DATABASE "+d.name)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make a database: %w", err), d.stop())
	}
	u.Path = "/" + d.name
	d.url = u.String()
	return d, nil
}

// databaseTimeout bounds what is done at the beginning and the end.
const databaseTimeout = time.Minute

func (d *database) exec(at, statement string) error {
	ctx, cancel := context.WithTimeout(context.Background(), databaseTimeout)
	defer cancel()
	conn, err := pgx.Connect(ctx, at)
	if err != nil {
		return err
	}
	defer conn.Close(ctx) // what it did is done
	_, err = conn.Exec(ctx, statement)
	return err
}

// hold locks the subscriptions against writers for d. A database that is away
// is trouble enough.
func (d *database) hold(ctx context.Context, lasts time.Duration) {
	at := d.url
	if d.server != nil {
		at = postgrestest.URLOf(d.name, d.servers()...) + "&target_session_attrs=read-write"
	}
	conn, err := pgx.Connect(ctx, at)
	if err != nil {
		return
	}
	defer conn.Close(context.WithoutCancel(ctx)) // it rolls back
	if _, err := conn.Exec(ctx, "BEGIN"); err != nil {
		return
	}
	if _, err := conn.Exec(ctx, "LOCK TABLE subscriptions IN EXCLUSIVE MODE"); err != nil {
		return
	}
	Wait(ctx, lasts)
}

// close removes the database. Nobody may use it any more.
func (d *database) close() error {
	if d.server != nil {
		return d.stop()
	}
	if err := d.exec(d.admin, "DROP DATABASE "+d.name+" WITH (FORCE)"); err != nil {
		return fmt.Errorf("remove the database %s: %w", d.name, err)
	}
	return nil
}

// stop ends a private server, in order, so that none of its processes is left.
func (d *database) stop() error {
	if d.server == nil {
		return nil
	}
	var errs []error
	for _, server := range d.servers() {
		server.Stop()
		errs = append(errs, server.Close())
	}
	return errors.Join(errs...)
}

// DatabaseCPU returns the CPU time that the database's processes have used,
// where it is a private one; 0: not known.
func (r *Rig) DatabaseCPU() time.Duration {
	if r.database == nil || r.database.server == nil {
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
	conn, err := pgx.Connect(ctx, r.database.url)
	if err == nil {
		err = cmp.Or(conn.QueryRow(ctx, `SELECT pg_total_relation_size('subscriptions')`).Scan(&n), conn.Close(ctx))
	}
	if err != nil {
		return 0, fmt.Errorf("ask for the registry's size: %w", err)
	}
	return n, nil
}
