package postgrestest

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"
)

// Standby makes a second server that follows this one, and has this one
// acknowledge nothing that the second does not have. It returns when both are
// in step.
func (s *Server) Standby() *Server {
	s.t.Helper()
	standby := s.Follower()
	s.Exec("postgres", "ALTER SYSTEM SET synchronous_standby_names = 'standby'")
	s.Exec("postgres", "SELECT pg_reload_conf()")
	s.ok(s.until("had its standby in step", func(ctx context.Context) error {
		conn, err := pgx.Connect(ctx, s.URL("postgres"))
		if err != nil {
			return err
		}
		defer conn.Close(ctx)
		var n int
		err = conn.QueryRow(ctx, `SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync' AND state = 'streaming'`).Scan(&n)
		if err == nil && n == 0 {
			err = errors.New("no standby in step")
		}
		return err
	}))
	return standby
}

// Follower makes a second server that follows this one as well as it goes.
func (s *Server) Follower() *Server {
	s.t.Helper()
	follower := belongs(s.t, func(...string) (*Private, error) { return prepare() })
	s.ok(s.run("pg_basebackup", "-D", follower.data(), "-h", s.dir, "-p", s.port, "-U", "postgres", "-R", "-X", "stream", "-c", "fast", "--no-sync"))
	follower.Start("hot_standby=on", "cluster_name=standby")
	return follower
}

// Promote makes a standby take writes, alone.
func (s *Server) Promote() {
	s.t.Helper()
	s.Exec("postgres", "SELECT pg_promote()")
	s.Exec("postgres", "ALTER SYSTEM SET synchronous_standby_names = ''")
	s.Exec("postgres", "SELECT pg_reload_conf()")
}
