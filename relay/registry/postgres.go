package registry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
)

// PostgresConfig says where the database is and how to treat it. Nothing of it
// can be reloaded, save the password.
type PostgresConfig struct {
	// URL of the database as libpq takes it, postgres://user@host:5432/name or
	// key=value, with sslmode, sslrootcert and the other options. Several hosts
	// are tried in turn, and only one that takes writes is used. Of our
	// own, pool_max_conns bounds the connections, from 2; without it there are
	// up to 10, and one more that listens. A pooler between has to leave each
	// connection its session: there are locks, settings and listening in it.
	// Required.
	URL string

	// PasswordFile holds the password on its first line. It is read for every
	// connection. Empty: the URL's, or what libpq would find.
	PasswordFile string

	// SubscriptionLifetime is how long a subscription lives without being
	// renewed. Zero or negative: for ever. It is applied by Run, so it may take up to
	// a 24th of itself, and at most an hour, longer.
	SubscriptionLifetime time.Duration

	// PollInterval is how late at most a change of another relay is seen where
	// its notification is lost. Zero: 1 s.
	PollInterval time.Duration

	Registerer prometheus.Registerer // for metrics; nil: none
	Logger     *slog.Logger          // nil: silent
}

func (c PostgresConfig) pollInterval() time.Duration {
	if c.PollInterval <= 0 {
		return time.Second
	}
	return c.PollInterval
}

// Bounds of our own choice.
const (
	defaultConnections = 10
	connectTimeout     = 5 * time.Second
	// callTimeout bounds a call, so that a database that has gone silent is
	// noticed: the system would try for a quarter of an hour.
	callTimeout = 15 * time.Second
	// writeTimeout bounds a transaction that has begun. An import of 30,000
	// takes some seconds, and a standby may be waited for.
	writeTimeout = time.Minute
)

// Postgres is a Registry in a PostgreSQL database, 14 or later, for any number
// of relays. A change that one of them makes is told to the listeners of all
// whose Run is running.
//
// After an error that wraps ErrUnavailable a change may have been kept all the
// same, if the connection was lost during the commit. Repeating is harmless.
type Postgres struct {
	*store
	*postgresServer
}

var _ Registry = (*Postgres)(nil)

// postgresServer is the database of a Postgres.
type postgresServer struct {
	*store    // for its clock and its feed
	poll      time.Duration
	pool      *pgxpool.Pool
	changelog *changelogReader
	hint      chan struct{} // one slot: other relays should look
	news      atomic.Bool   // and there are changes

	streams streamNews
	sums    atomic.Bool            // other relays should look for sums
	onSums  atomic.Pointer[func()] // hears that they should

	inquiries inquiries
}

// OpenPostgres connects and brings the schema up to date. It starts nothing; the
// caller closes it. Errors wrap ErrNewerSchema or ErrUnavailable where these
// apply; a URL that can't be read is an *InvalidError.
func OpenPostgres(ctx context.Context, c PostgresConfig) (*Postgres, error) {
	config, err := c.pool()
	if err != nil {
		return nil, err
	}
	s, err := newStore(c.SubscriptionLifetime, c.Registerer, c.Logger)
	if err != nil {
		return nil, err
	}
	p := &postgresServer{store: s, poll: c.pollInterval(), changelog: newChangelogReader(), hint: make(chan struct{}, 1)}
	p.inquiries.asked = make(chan Inquiry, maxInquiries)
	s.db = p
	if p.pool, err = pgxpool.NewWithConfig(ctx, config); err != nil {
		return nil, fmt.Errorf("open database: %w", wrapUnavailable(err))
	}
	if err := checkServer(ctx, p.pool); err != nil {
		p.pool.Close()
		return nil, wrapUnavailable(err)
	}
	if err := migratePostgres(ctx, p.pool); err != nil {
		p.pool.Close()
		return nil, fmt.Errorf("open database: %w", wrapUnavailable(err))
	}
	if err := p.startChangelog(ctx); err != nil {
		p.pool.Close()
		return nil, fmt.Errorf("open database: read changes: %w", wrapUnavailable(err))
	}
	return &Postgres{s, p}, nil
}

// CheckPostgresURL returns an *InvalidError if the URL can't be read or asks for
// what would not work.
func CheckPostgresURL(url string) error {
	_, err := PostgresConfig{URL: url}.pool()
	return err
}

// pool returns the configuration of the connections.
func (c PostgresConfig) pool() (*pgxpool.Config, error) {
	if c.URL == "" {
		return nil, &InvalidError{"url", "is missing"}
	}
	if scheme, _, is := strings.Cut(c.URL, "://"); is && scheme != "postgres" && scheme != "postgresql" {
		return nil, &InvalidError{"url", "can't be read: it begins with postgres://"}
	}
	config, err := pgxpool.ParseConfig(c.URL)
	if err != nil {
		return nil, &InvalidError{"url", "can't be read: " + err.Error()} // pgx hides the password
	}
	if !strings.Contains(c.URL, "pool_max_conns") {
		config.MaxConns = defaultConnections
	}
	if err := usable(config); err != nil {
		return nil, err
	}
	conn := config.ConnConfig
	if conn.ConnectTimeout == 0 {
		conn.ConnectTimeout = connectTimeout
	}
	if conn.ValidateConnect == nil {
		conn.ValidateConnect = pgconn.ValidateConnectTargetSessionAttrsReadWrite
	}
	if conn.RuntimeParams["application_name"] == "" {
		conn.RuntimeParams["application_name"] = "badgerelay"
	}
	config.AfterConnect = prepareConnection
	if c.PasswordFile != "" {
		config.BeforeConnect = func(_ context.Context, conn *pgx.ConnConfig) error {
			password, err := readPassword(c.PasswordFile)
			conn.Password = password
			return err
		}
	}
	return config, nil
}

// usable refuses what pgx would take and the registry can't work with.
func usable(config *pgxpool.Config) error {
	switch mode := config.ConnConfig.DefaultQueryExecMode; mode {
	case pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol: // values would come as text
		return &InvalidError{"url", fmt.Sprintf("asks for default_query_exec_mode %q, which is not supported", mode)}
	}
	if config.MaxConns < 2 { // a migration holds its lock on one and works on another
		return &InvalidError{"url", "asks for less than 2 connections with pool_max_conns"}
	}
	return nil
}

func readPassword(path string) (string, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("read password: %w", err)
	}
	line, _, _ := strings.Cut(string(data), "\n")
	return strings.TrimSuffix(line, "\r"), nil
}

// prepareConnection makes sure that text is taken as it is written, that a commit
// reaches the disk, and that a transaction whose relay is gone does not keep its locks,
// whatever the role's settings are. Statements instead of start-up parameters, because
// connection poolers refuse those.
func prepareConnection(ctx context.Context, conn *pgx.Conn) error {
	if encoding := conn.PgConn().ParameterStatus("server_encoding"); encoding != "" && encoding != "UTF8" {
		return &InvalidError{"url", "leads to a database whose encoding is " + encoding + ", and mailboxes are UTF-8: make one with CREATE DATABASE ... ENCODING 'UTF8' TEMPLATE template0"}
	}
	_, err := conn.Exec(ctx, `SELECT set_config('client_encoding', 'UTF8', false), set_config('standard_conforming_strings', 'on', false),
		set_config('idle_in_transaction_session_timeout', '60000', false),
		CASE WHEN current_setting('synchronous_commit') = 'off' THEN set_config('synchronous_commit', 'on', false) END`)
	return err
}

// FailoverLoses reports whether a failover may lose what was acknowledged: the
// URL names several hosts, and the one that takes writes acknowledges them
// before another has them.
func (p *postgresServer) FailoverLoses(ctx context.Context) (bool, error) {
	config := p.pool.Config().ConnConfig
	several := slices.ContainsFunc(config.Fallbacks, func(f *pgconn.FallbackConfig) bool { // one also for each way of TLS
		return f.Host != config.Host || f.Port != config.Port
	})
	if !several {
		return false, nil
	}
	ctx, cancel := p.call(ctx)
	defer cancel()
	var loses bool
	err := p.pool.QueryRow(ctx, `SELECT current_setting('synchronous_standby_names') = '' OR current_setting('synchronous_commit') = 'local'`).Scan(&loses)
	return loses, wrapUnavailable(err)
}

func (p *postgresServer) dialect() *dialect { return &postgresDialect }

func (p *postgresServer) unavailable(err error) error { return wrapUnavailable(err) }

func (p *postgresServer) close() error {
	p.pool.Close()
	return nil
}

// call bounds a call that reads.
func (p *postgresServer) call(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, callTimeout)
}

// wrapUnavailable makes err wrap ErrUnavailable if the database could not be used, which
// may pass: everything that is neither a domain error nor an answer of the server, and
// those answers that speak of the server's state.
func wrapUnavailable(err error) error {
	if err == nil || isDomainError(err) {
		return err
	}
	answer, ok := errors.AsType[*pgconn.PgError](err)
	if !ok || isTransient(answer.Code) {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return err
}

// isTransient says whether a state of PostgreSQL's may be another one soon
// (PostgreSQL 15, appendix A, read 2026-11).
func isTransient(state string) bool {
	switch state {
	case "25006", // read_only_sql_transaction: the server became a standby
		"40001", "40P01", "55P03", // serialization_failure, deadlock_detected, lock_not_available
		"57014": // query_canceled: by a timeout
		return true
	}
	switch state[:min(2, len(state))] { // the class
	case "08", "28", "53", "57", "58": // connections, passwords, resources, shutdown, the system's I/O
		return true
	}
	return false
}
