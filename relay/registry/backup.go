package registry

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
)

// Backup writes the SQLite registry at path, as it is at one moment, to the new
// file into, of mode 0600. A relay may go on using path meanwhile. When Backup
// returns nil the copy is on the disk; otherwise nothing is left of it.
// ErrUnavailable is in the error where path can't be read or a disk is full; what is
// no registry is an *InvalidError. One of a newer or older version is copied as it is.
func Backup(ctx context.Context, path, into string) (err error) {
	if err := checkFile(path); err != nil {
		return err
	}
	if _, err := os.Stat(path); err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	path, err = filepath.Abs(path)
	if err != nil {
		return fmt.Errorf("resolve database path: %w", err)
	}
	into, err = filepath.Abs(into)
	if err != nil {
		return fmt.Errorf("resolve backup path: %w", err)
	}
	// SQLite takes an empty file; one that it made would have the umask's mode.
	f, err := os.OpenFile(into, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("make backup: %w", err)
	}
	defer func() {
		if err = errors.Join(err, f.Close()); err != nil {
			_ = os.Remove(into) // the first error is the one that matters
		}
	}()
	db, err := sql.Open("sqlite", "file:"+(&url.URL{Path: path}).EscapedPath()+"?mode=ro&_pragma=busy_timeout(10000)")
	if err != nil {
		return fmt.Errorf("open database: %w", err)
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	switch version, err := sqliteVersion(ctx, db); {
	case err != nil:
		return fmt.Errorf("read registry: %w", unavailable(err))
	case version == 0: // who restores it would have lost everything
		return &InvalidError{"path", "holds no registry yet"}
	}
	if _, err := db.ExecContext(ctx, "VACUUM INTO ?", into); err != nil {
		return fmt.Errorf("write backup: %w", unavailable(err))
	}
	// SQLite does not (sqlite.org, "VACUUM", section 3.1, read 2026-11).
	if err := f.Sync(); err != nil {
		return fmt.Errorf("write backup: %w", err)
	}
	if err := syncDir(filepath.Dir(into)); err != nil {
		return fmt.Errorf("write backup: %w", err)
	}
	return nil
}

// syncDir makes a new file's name last. Windows can't sync a directory, and
// keeps a name with the file system's journal.
func syncDir(dir string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
