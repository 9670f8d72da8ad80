package registry

import (
	"context"
	"time"
)

// Presence is what a relay says of itself to those that share its database.
type Presence struct {
	Name      string    // of the place where it serves agents: whoever starts there next takes it over
	StartedAt time.Time // of the process
	Stopped   bool      // it has ended in good order
	Status    []byte    // for the other relays; not read here

	// Silence is how long ago it said so, by the database's clock. Announce
	// does not read it.
	Silence time.Duration
}

// presenceRetention is how long a relay is remembered that says nothing: over a
// night.
const presenceRetention = 24 * time.Hour

// Announce puts a relay's presence in the place of its last one. The end of a
// process that another has followed is passed over.
func (p *postgresServer) Announce(ctx context.Context, one Presence) (err error) {
	defer p.done(ctx, opPresence, time.Now(), &err)
	call, cancel := p.call(ctx)
	defer cancel()
	_, err = p.pool.Exec(call, `INSERT INTO relays (name, started_at, seen_at, stopped, status) VALUES ($1, $2, `+pgNow+`, $3, $4)
		ON CONFLICT (name) DO UPDATE SET started_at = excluded.started_at, seen_at = excluded.seen_at,
		stopped = excluded.stopped, status = excluded.status
		WHERE NOT excluded.stopped OR relays.started_at = excluded.started_at`,
		one.Name, one.StartedAt.UnixMilli(), one.Stopped, one.Status)
	return err
}

// pgNow is the server's time in milliseconds, and pgBegan when it began the
// transaction: what relays tell each other is judged by one clock.
const (
	pgNow   = `(extract(epoch FROM clock_timestamp()) * 1000)::bigint`
	pgBegan = `(extract(epoch FROM now()) * 1000)::bigint`
)

// Presences returns the relays that said something within a day, by name.
func (p *postgresServer) Presences(ctx context.Context) (all []Presence, err error) {
	defer p.done(ctx, opPresence, time.Now(), &err)
	call, cancel := p.call(ctx)
	defer cancel()
	rows, err := p.pool.Query(call, `SELECT name, started_at, greatest(`+pgNow+` - seen_at, 0), stopped, status FROM relays
		WHERE seen_at > `+pgNow+` - $1 ORDER BY name`, presenceRetention.Milliseconds())
	err = pgEachRow(rows, err, func(rows scanner) error {
		var one Presence
		var started, silence int64
		err := rows.Scan(&one.Name, &started, &silence, &one.Stopped, &one.Status)
		one.StartedAt, one.Silence = fromMillis(started), time.Duration(silence)*time.Millisecond
		all = append(all, one)
		return err
	})
	return all, err
}
