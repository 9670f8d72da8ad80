package registry

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	// changeChannel is where relays tell each other that there are changes. A
	// notification there is a hint without content.
	changeChannel = "badgerelay_changes"

	// hintPause is the least time between two notifications of a relay: at each
	// commit with one the server takes a lock of the whole database.
	hintPause = 20 * time.Millisecond

	listenPause = time.Second // between attempts to listen
)

// Run implements Registry. Beside that it follows the changes of other relays,
// and returns ErrChangesMissed when some are lost: it could not read them for
// nearly as long as they are kept, or a standby took over that lacked some.
func (p *Postgres) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	wake := make(chan struct{}, 1)
	var wg sync.WaitGroup // all end with ctx
	wg.Go(func() { p.listen(ctx, wake) })
	wg.Go(func() { p.sendHints(ctx) })
	for range inquiryWorkers {
		wg.Go(func() { p.answerInquiries(ctx) })
	}
	wg.Go(func() { p.purgeUntil(ctx) })
	err := p.followUntil(ctx, wake)
	cancel()
	wg.Wait()
	return err
}

// followUntil reads changes when woken and at every interval, until ctx is done.
func (p *postgresServer) followUntil(ctx context.Context, wake <-chan struct{}) error {
	ticker := time.NewTicker(p.poll)
	defer ticker.Stop()
	failed := false
	for {
		err := p.catchUp(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, ErrChangesMissed):
			return err
		case err != nil && !failed:
			p.log.Error("changes of other relays can't be read", "error", err)
		case err == nil && failed:
			p.log.Info("changes of other relays are read again")
		}
		failed = err != nil
		select {
		case <-wake:
		case <-ticker.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// listen wakes the follower at each notification, until ctx is done.
func (p *postgresServer) listen(ctx context.Context, wake chan<- struct{}) {
	for {
		err := p.listenOnce(ctx, wake)
		if ctx.Err() != nil {
			return
		}
		p.log.Debug("listening ended", "error", err)
		select {
		case <-time.After(listenPause):
		case <-ctx.Done():
			return
		}
	}
}

// listenOnce listens on a connection of its own until that fails.
func (p *postgresServer) listenOnce(ctx context.Context, wake chan<- struct{}) error {
	config := p.pool.Config()
	if config.BeforeConnect != nil {
		if err := config.BeforeConnect(ctx, config.ConnConfig); err != nil {
			return err
		}
	}
	conn, err := pgx.ConnectConfig(ctx, config.ConnConfig)
	if err != nil {
		return err
	}
	defer func() {
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = conn.Close(last) // there is nothing to lose
	}()
	// What relays ask each other is text, too (prepareConnection).
	if _, err := conn.Exec(ctx, "SET client_encoding = 'UTF8'; LISTEN "+changeChannel+"; LISTEN "+streamChannel+"; LISTEN "+sumChannel+"; LISTEN "+inquiryChannel); err != nil {
		return err
	}
	for changed := true; ; { // also what came before
		if changed {
			select {
			case wake <- struct{}{}:
			default:
			}
		}
		n, err := conn.WaitForNotification(ctx)
		if err != nil {
			return err
		}
		changed = false
		switch n.Channel {
		case changeChannel:
			changed = true
		case streamChannel:
			p.streams.heard(n.Payload)
		case sumChannel:
			p.sumsHeard()
		case inquiryChannel:
			p.inquiryHeard(n.Payload)
		}
	}
}

// sendHints notifies other relays after commits, and of the streams that agents
// have opened, until ctx is done.
func (p *postgresServer) sendHints(ctx context.Context) {
	for {
		select {
		case <-p.hint:
		case <-ctx.Done():
			return
		}
		streams := p.streams.take()
		call, cancel := p.call(ctx)
		_, err := p.pool.Exec(call, `SELECT pg_notify($1, '') WHERE $2 UNION ALL SELECT pg_notify($3, stream) FROM unnest($4::text[]) stream
			UNION ALL SELECT pg_notify($5, '') WHERE $6`, changeChannel, p.news.Swap(false), streamChannel, streams, sumChannel, p.sums.Swap(false))
		cancel()
		if err != nil {
			p.log.Debug("could not notify other relays", "error", err) // they poll
		}
		select {
		case <-time.After(hintPause):
		case <-ctx.Done():
			return
		}
	}
}
