package rig

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	_ "modernc.org/sqlite" // the driver that the registry uses too
)

func (r *Rig) registryPath() string { return filepath.Join(r.path(dirRegistry), fileRegistry) }

// LockRegistry holds the registry's write lock for d, as a backup may; of a
// database, that of the subscriptions, where one that is away is trouble enough.
func (r *Rig) LockRegistry(ctx context.Context, d time.Duration) error {
	if r.database != nil {
		r.database.hold(ctx, d)
		return nil
	}
	db, err := sql.Open("sqlite", "file:"+r.registryPath()+"?_pragma=busy_timeout(10000)&_txlock=immediate")
	if err != nil {
		return fmt.Errorf("open the registry: %w", err)
	}
	defer db.Close() // nothing uncommitted is in it
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("lock the registry: %w", err)
	}
	Wait(ctx, d)
	if err := tx.Rollback(); err != nil && ctx.Err() == nil {
		return fmt.Errorf("unlock the registry: %w", err)
	}
	return nil
}

// SlowRegistry keeps every change of the registry waiting for d: somebody else
// has the write lock most of the time, and never for long.
func (r *Rig) SlowRegistry(ctx context.Context, d time.Duration) error {
	const held, free = 150 * time.Millisecond, 20 * time.Millisecond
	for end := time.Now().Add(d); time.Now().Before(end) && ctx.Err() == nil; Wait(ctx, free) {
		if err := r.LockRegistry(ctx, held); err != nil {
			return err
		}
	}
	return nil
}

// ReadOnlyRegistry turns the registry's files read-only for d, those that are
// open too. The rig must have a small disk.
func (r *Rig) ReadOnlyRegistry(ctx context.Context, d time.Duration) (err error) {
	for _, suffix := range []string{"", "-wal"} {
		path := r.registryPath() + suffix
		if err := setImmutable(path, true); errors.Is(err, os.ErrNotExist) {
			continue // no relay has it open right now
		} else if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, setImmutable(path, false)) }()
	}
	Wait(ctx, d)
	return nil
}

// StepClock sets the relay's clock so far ahead. The rig must have a clock of
// its own.
func (r *Rig) StepClock(ahead time.Duration) error { return r.clock.Step(ahead) }

// FillDisk leaves the registry's file system without room for d. The rig must
// have a small disk.
func (r *Rig) FillDisk(ctx context.Context, d time.Duration) error {
	f, err := os.Create(filepath.Join(r.path(dirRegistry), "filler"))
	if err != nil {
		return fmt.Errorf("fill the disk: %w", err)
	}
	defer os.Remove(f.Name()) // else the run's end finds it
	block := make([]byte, 64<<10)
	for err == nil {
		_, err = f.Write(block)
		if errors.Is(err, syscall.ENOSPC) && len(block) > 1 {
			block, err = block[:len(block)/2], nil
		}
	}
	if !errors.Is(err, syscall.ENOSPC) {
		return fmt.Errorf("fill the disk: %w", errors.Join(err, f.Close()))
	}
	Wait(ctx, d)
	return f.Close()
}

// Poll calls f until it reports that it is done, or an error, each time after every. Its
// own error is ctx's.
func Poll(ctx context.Context, every time.Duration, f func() (done bool, err error)) error {
	for {
		if done, err := f(); done || err != nil {
			return err
		}
		Wait(ctx, every)
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// Wait returns after d, or when ctx is done.
func Wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
