package registry

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// Backup writes the SQLite registry at path, as it is at one moment, to the new
// file into, of mode 0600. A relay may go on using path meanwhile. When Backup
// returns nil the copy is on the disk; otherwise nothing is left of it. It gets its name
// when it is whole: a process that is killed leaves a file whose name ends in .part,
// which the next Backup to the same name removes when it is an hour old.
// ErrUnavailable is in the error where path can't be read or a disk is full; what is
// no registry is an *InvalidError. One of a newer or older version is copied as it is.
func Backup(ctx context.Context, path, into string) (err error) {
	into, err = filepath.Abs(into)
	if err != nil {
		return fmt.Errorf("resolve backup path: %w", err)
	}
	if _, err := os.Lstat(into); err == nil {
		return fmt.Errorf("make backup %s: %w", into, fs.ErrExist)
	}
	f, err := backupPart(ctx, path, into)
	if err != nil {
		return err
	}
	defer func() {
		_, _ = f.Close(), os.Remove(f.Name()) // the first error is the one that matters
	}()
	// SQLite does not (sqlite.org, "VACUUM", section 3.1, read 2026-11).
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write backup: %w", err)
	}
	if err := giveName(f.Name(), into); err != nil {
		return fmt.Errorf("write backup: %w", err)
	}
	if err := syncDir(filepath.Dir(into)); err != nil {
		return fmt.Errorf("write backup: %w", err)
	}
	return nil
}

// BackupTo is Backup to a stream. The copy is made beside the registry, where there is
// room, and in a container nowhere else. It loses its name before it is read, so that a
// process that is killed while a slow reader takes it leaves nothing.
func BackupTo(ctx context.Context, path string, w io.Writer) error {
	path, err := filepath.Abs(path)
	if err != nil {
		return fmt.Errorf("resolve database path: %w", err)
	}
	f, err := backupPart(ctx, path, path+".stream")
	if err != nil {
		return err
	}
	removed := os.Remove(f.Name()) == nil
	defer func() {
		if _ = f.Close(); !removed { // Windows removes no open file
			_ = os.Remove(f.Name()) // the next backup does
		}
	}()
	_, err = io.Copy(w, f)
	return err
}

// backupPart copies the registry at path into a new file beside into, whose name is
// into's with more, and .part at its end.
func backupPart(ctx context.Context, path, into string) (f *os.File, err error) {
	if err := CheckFile(path); err != nil {
		return nil, err
	}
	if _, err := os.Stat(path); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	path, err = filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("resolve database path: %w", err)
	}
	removeAbandoned(into)
	// SQLite takes an empty file; one that it made would have the umask's mode.
	f, err = createPart(into)
	if wrong, ok := errors.AsType[*fs.PathError](err); ok { // whose path nobody has named
		return nil, fmt.Errorf("make backup in directory %s: %w", filepath.Dir(into), wrong.Err)
	}
	if err != nil {
		return nil, fmt.Errorf("make backup: %w", err)
	}
	defer func() {
		if err != nil {
			_, _ = f.Close(), os.Remove(f.Name()) // the first error is the one that matters
		}
	}()
	return f, vacuumInto(ctx, path, f.Name())
}

// abandonedAfter is how long nobody has written to the copy of a process that was
// killed. One that is being made is written all the time.
const abandonedAfter = time.Hour

// removeAbandoned removes what killed processes left of backups to a name, as far as
// it may: a backup needs neither a directory that can be listed nor others' files gone.
func removeAbandoned(into string) {
	entries, err := os.ReadDir(filepath.Dir(into))
	if err != nil {
		return
	}
	for _, e := range entries {
		name, isPart := strings.CutSuffix(strings.TrimSuffix(e.Name(), "-journal"), ".part")
		number, isOfInto := strings.CutPrefix(name, filepath.Base(into)+".")
		if !isPart || !isOfInto || strings.Trim(number, "0123456789") != "" {
			continue
		}
		info, err := e.Info()
		if err != nil || !info.Mode().IsRegular() || time.Since(info.ModTime()) < abandonedAfter {
			continue // or another backup has removed it
		}
		_ = os.Remove(filepath.Join(filepath.Dir(into), e.Name())) // another backup may have
	}
}

// giveName renames a file, and takes no other's place, as far as the file system can
// tell.
func giveName(part, name string) error {
	err := os.Link(part, name)
	if err == nil || errors.Is(err, fs.ErrExist) {
		return err
	}
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600) // it has no links
	if err != nil {
		return err
	}
	if err := errors.Join(f.Close(), os.Rename(part, name)); err != nil {
		return errors.Join(err, os.Remove(name)) // which is empty, and ours
	}
	return nil
}

// vacuumInto copies a database into an empty file.
func vacuumInto(ctx context.Context, path, into string) (err error) {
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
