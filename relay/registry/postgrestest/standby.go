package postgrestest

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"
)

// Standby makes a second server that follows this one, and has this one
// acknowledge nothing that the second does not have. It returns when both are
// in step. The caller closes it.
func (p *Private) Standby(settings ...string) (*Private, error) {
	standby, err := p.Follower(settings...)
	if err != nil {
		return nil, err
	}
	err = errors.Join(p.exec("postgres", "ALTER SYSTEM SET synchronous_standby_names = 'standby'"),
		p.exec("postgres", "SELECT pg_reload_conf()"))
	if err == nil {
		err = p.until("had its standby in step", p.inStep)
	}
	if err != nil {
		return nil, errors.Join(err, standby.Close())
	}
	return standby, nil
}

func (p *Private) inStep(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, p.URL("postgres"))
	if err != nil {
		return err
	}
	defer conn.Close(ctx) // nothing is under way
	var n int
	err = conn.QueryRow(ctx, `SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync' AND state = 'streaming'`).Scan(&n)
	if err == nil && n == 0 {
		err = errors.New("no standby in step")
	}
	return err
}

// Follower makes a second server that follows this one as well as it goes. The
// caller closes it.
func (p *Private) Follower(settings ...string) (*Private, error) {
	follower, err := prepare()
	if err != nil {
		return nil, err
	}
	err = p.run("pg_basebackup", "-D", follower.data(), "-h", p.dir, "-p", p.port, "-U", "postgres", "-R", "-X", "stream", "-c", "fast", "--no-sync")
	if err == nil {
		err = follower.start(append([]string{"hot_standby=on", "cluster_name=standby"}, settings...)...)
	}
	if err != nil {
		return nil, errors.Join(err, follower.Close())
	}
	return follower, nil
}

// Promote makes a standby take writes, alone.
func (p *Private) Promote() error {
	return errors.Join(p.exec("postgres", "SELECT pg_promote()"),
		p.exec("postgres", "ALTER SYSTEM SET synchronous_standby_names = ''"),
		p.exec("postgres", "SELECT pg_reload_conf()"))
}

// Standby is Private.Standby for the test's server.
func (s *Server) Standby() *Server {
	s.t.Helper()
	return belongs(s.t, func(settings ...string) (*Private, error) { return s.Private.Standby(settings...) })
}

// Follower is Private.Follower for the test's server.
func (s *Server) Follower() *Server {
	s.t.Helper()
	return belongs(s.t, func(settings ...string) (*Private, error) { return s.Private.Follower(settings...) })
}

// Promote is Private.Promote for the test's server.
func (s *Server) Promote() {
	s.t.Helper()
	s.ok(s.Private.Promote())
}
