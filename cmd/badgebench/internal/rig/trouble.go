package rig

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	_ "modernc.org/sqlite" // the driver that the registry uses too

	"badgerelay/auth"
	"badgerelay/cmd/badgebench/internal/names"
)

func (r *Rig) registryPath() string { return filepath.Join(r.path(dirRegistry), fileRegistry) }

// Store returns the directory of the organization's certificates.
func (r *Rig) Store() string { return r.path(fileStore) }

// LockRegistry holds the registry's write lock for d, as a backup may.
func (r *Rig) LockRegistry(ctx context.Context, d time.Duration) error {
	db, err := sql.Open("sqlite", "file:"+r.registryPath()+"?_pragma=busy_timeout(10000)")
	if err != nil {
		return fmt.Errorf("open the registry: %w", err)
	}
	defer db.Close() // it rolls back
	conn, err := db.Conn(ctx)
	if err != nil {
		return fmt.Errorf("open the registry: %w", err)
	}
	defer conn.Close() // it rolls back
	if _, err := conn.ExecContext(ctx, "BEGIN IMMEDIATE"); err != nil {
		return fmt.Errorf("lock the registry: %w", err)
	}
	wait(ctx, d)
	if _, err := conn.ExecContext(context.WithoutCancel(ctx), "ROLLBACK"); err != nil {
		return fmt.Errorf("unlock the registry: %w", err)
	}
	return nil
}

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
	wait(ctx, d)
	return f.Close()
}

// RollKey has the organization's next certificate registered, sign, and the
// one before removed. It tries again while the relay can't be reached.
func (r *Rig) RollKey(ctx context.Context) error {
	was, err := r.keys.store.Current()
	if err != nil {
		return err
	}
	next, err := r.keys.store.Stage(names.Organization, time.Now(), true)
	if err != nil {
		return err
	}
	file := r.path("next.cer")
	if err := auth.ExportDER(file, next.Certificate); err != nil {
		return err
	}
	if err := r.insist(ctx, "exists", "credential", "add", "--organization", names.Organization, "--certificate", file); err != nil {
		return err
	}
	if _, err := r.keys.store.Publish(true); err != nil {
		return err
	}
	wait(ctx, time.Second)
	if err := r.insist(ctx, "no such", "credential", "remove", "--organization", names.Organization, auth.Thumbprint(was.Certificate)); err != nil {
		return err
	}
	return r.keys.store.ClearPrevious(true)
}

// insist runs an operator's command until it succeeds. done is a part of the
// refusal of what was done already, by a relay that was killed before it said
// so.
func (r *Rig) insist(ctx context.Context, done string, args ...string) error {
	for {
		err := r.operate(ctx, args...)
		if err == nil || strings.Contains(err.Error(), done) {
			return nil
		}
		if ctx.Err() != nil {
			return err
		}
		wait(ctx, 100*time.Millisecond)
	}
}

func wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
