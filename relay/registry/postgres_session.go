package registry

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// oldestPostgres is the oldest server that is supported, as server_version_num.
const oldestPostgres = 140000

// checkServer returns an *InvalidError of the URL where what it leads to can't
// keep a registry: an old version, another database that speaks the protocol,
// or a pooler that gives a connection another session with each transaction.
func checkServer(ctx context.Context, pool *pgxpool.Pool) error {
	conn, err := pool.Acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	// Without arguments, and so without preparing, which a pooler may not know.
	var number, text string
	var direct bool
	err = conn.QueryRow(ctx, fmt.Sprintf(`SELECT current_setting('server_version_num'), version(), pg_backend_pid() = %d`, conn.Conn().PgConn().PID()),
		pgx.QueryExecModeSimpleProtocol).Scan(&number, &text, &direct)
	if err != nil {
		return err
	}
	var version int
	if _, err := fmt.Sscan(number, &version); err != nil || version < oldestPostgres {
		return &InvalidError{"url", "leads to " + text + "; PostgreSQL 14 or later is needed"}
	}
	if direct { // the server tells a connection its own process; a pooler makes one up
		return nil
	}
	return checkPooler(ctx, pool, conn)
}

// checkPooler finds out whether a pooler leaves connections their sessions. A
// session's setting is seen by another connection, or not by its own, if it
// does not.
func checkPooler(ctx context.Context, pool *pgxpool.Pool, one *pgxpool.Conn) error {
	other, err := pool.Acquire(ctx)
	if err != nil {
		return err
	}
	defer other.Release()
	const read = `SELECT coalesce(current_setting('badgerelay.session', true), '')`
	mine := rand.Text()
	for range 3 {
		var own, others string
		_, err := one.Exec(ctx, `SELECT set_config('badgerelay.session', '`+mine+`', false)`)
		if err == nil {
			_, err = other.Exec(ctx, "BEGIN") // takes a session, as a rule the one that was free last
		}
		if err == nil {
			err = errors.Join(other.QueryRow(ctx, read, pgx.QueryExecModeSimpleProtocol).Scan(&others),
				one.QueryRow(ctx, read, pgx.QueryExecModeSimpleProtocol).Scan(&own))
			_, end := other.Exec(ctx, "ROLLBACK")
			err = errors.Join(err, end)
		}
		if err != nil {
			return err
		}
		if own != mine || others == mine {
			return &InvalidError{"url", "leads to a pooler that gives each transaction another session, as PgBouncer does with pool_mode=transaction; " +
				"locks, settings and listening are in a session: name the server itself, or a pool with pool_mode=session"}
		}
	}
	return nil
}

// Check connects to the database, and returns what server it is. It changes
// nothing, and returns the errors of OpenPostgres.
func (c PostgresConfig) Check(ctx context.Context) (server string, err error) {
	config, err := c.pool()
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return "", wrapUnavailable(err)
	}
	defer pool.Close()
	if err := checkServer(ctx, pool); err != nil {
		return "", wrapUnavailable(err)
	}
	if err := checkTables(ctx, pool); err != nil {
		return "", wrapUnavailable(err)
	}
	var migrated bool
	err = pool.QueryRow(ctx, `SELECT version(), to_regclass('goose_db_version') IS NOT NULL`).Scan(&server, &migrated)
	if err != nil || !migrated {
		return server, wrapUnavailable(err)
	}
	return server, wrapUnavailable(checkSchema(ctx, pool))
}
