package registry

import (
	"context"
	"log/slog"
	"time"

	"badgerelay/relay"
)

// purgeBatch is the number of rows that one transaction of the purge takes, so
// that it never keeps other writers waiting.
const purgeBatch = 500

// purgeUntil purges at every turn until ctx is done.
func purgeUntil(ctx context.Context, lifetime time.Duration, purge func(context.Context) error, log *slog.Logger) {
	every := time.Hour
	if lifetime > 0 {
		every = min(every, max(lifetime/24, time.Second))
	}
	timer := time.NewTicker(every)
	defer timer.Stop()
	for {
		if err := purge(ctx); err != nil && ctx.Err() == nil {
			log.Warn("could not purge registry", "error", err)
		}
		select {
		case <-timer.C:
		case <-ctx.Done():
			return
		}
	}
}

// expire ends the subscriptions whose lifetime has passed. It reads through all
// of them, with due: an index by time would cost every registration more than
// this costs once an hour.
func expire(ctx context.Context, now time.Time, lifetime time.Duration, due func(context.Context, time.Time, relay.Removal) ([]relay.Removal, error),
	remove func(context.Context, []relay.Removal) ([]bool, error)) error {
	if lifetime <= 0 {
		return nil
	}
	before := fromMillis(now.Add(-lifetime).UnixMilli() + 1) // ends at its lifetime, not after
	var after relay.Removal
	for {
		found, err := due(ctx, before, after)
		if err != nil || len(found) == 0 {
			return err
		}
		if _, err := remove(ctx, found); err != nil {
			return err
		}
		after = found[len(found)-1]
	}
}
