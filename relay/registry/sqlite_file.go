package registry

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
)

// createFile creates a database without tables if there is no file. SQLite would do it
// with the umask's mode, and gives -wal and -shm the mode of the file. It gets its name
// when its first page is written, so that an empty file is never a new registry's
// (CheckFile). A file that exists is not touched: to close it would release the locks
// that another connection of this process has on it (POSIX, close).
func createFile(ctx context.Context, path string) error {
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return CheckFile(path)
	}
	removeAbandoned(path)
	part, err := createPart(path)
	if wrong, ok := errors.AsType[*fs.PathError](err); ok { // whose path nobody has named
		err = wrong.Err
	}
	if err != nil {
		return fmt.Errorf("%w: create %s: %w", ErrUnavailable, path, err)
	}
	name := part.Name()
	defer os.Remove(name) // which has no other name where it failed
	if err := part.Close(); err != nil {
		return fmt.Errorf("%w: create %s: %w", ErrUnavailable, path, err)
	}
	db, err := sql.Open("sqlite", "file:"+(&url.URL{Path: name}).EscapedPath())
	if err != nil {
		return err
	}
	_, err = db.ExecContext(ctx, "PRAGMA user_version = 0") // writes the first page
	if err := errors.Join(err, db.Close()); err != nil {
		return fmt.Errorf("create %s: %w", path, unavailable(err))
	}
	if err := giveName(name, path); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%w: create %s: %w", ErrUnavailable, path, err)
	}
	return CheckFile(path) // another process may have been first
}

// createPart creates a file of mode 0600 beside path, whose name is path's with more, and
// .part at its end.
func createPart(path string) (*os.File, error) {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*.part")
	if err != nil {
		return nil, err
	}
	if err := f.Chmod(0o600); err != nil && runtime.GOOS != "windows" { // whatever the umask took away; Windows has no such modes
		_, _ = f.Close(), os.Remove(f.Name()) // the first error is the one that matters
		return nil, err
	}
	return f, nil
}

// CheckFile returns an *InvalidError for what can't be a registry's file: SQLite would
// wait for a named pipe for ever, a directory must keep its mode, and an empty file is
// what a full disk or a slip has left where a registry was. One that is not there is
// none of these.
func CheckFile(path string) error {
	info, err := os.Stat(path)
	switch {
	case err != nil: // a link may be the reason
	case info.IsDir():
		return &InvalidError{"path", "is a directory: name the registry's file in it"}
	case !info.Mode().IsRegular():
		return &InvalidError{"path", "is no regular file"}
	case info.Size() == 0:
		return &InvalidError{"path", "is an empty file, and no registry: put a backup in its place, or remove it, and serve begins a new registry"}
	}
	if _, linked := os.Lstat(path); linked == nil && errors.Is(err, fs.ErrNotExist) {
		return &InvalidError{"path", "is a link to a file that is not there"}
	}
	return nil
}

// closeToOthers takes the right to open the file, and what SQLite keeps beside
// its real path, from everybody but its owner. What can't be taken is an *InvalidError.
func (f *sqliteFile) closeToOthers(path string) error {
	if runtime.GOOS == "windows" { // it has no such modes
		return nil
	}
	for _, suffix := range []string{"", "-wal", "-shm"} {
		info, err := os.Stat(path + suffix)
		if errors.Is(err, fs.ErrNotExist) || err == nil && info.Mode().Perm()&0o077 == 0 {
			continue
		}
		if err != nil {
			return fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
		if err := os.Chmod(path+suffix, info.Mode().Perm()&^0o077); err != nil {
			return &InvalidError{"path", fmt.Sprintf("can be opened by others (mode %04o), and that can't be changed: %v", info.Mode().Perm(), err)}
		}
		f.log.Warn("registry could be opened by others, and can't any more", "file", filepath.Base(path)+suffix, "mode", fmt.Sprintf("%04o", info.Mode().Perm()))
	}
	return nil
}

// Check looks at the file without changing it, and returns what is there. Its
// errors are those of OpenSQLite.
func (c SQLiteConfig) Check(ctx context.Context) (found string, err error) {
	if c.Path == "" {
		return "", &InvalidError{"path", "is missing"}
	}
	path, err := filepath.Abs(c.Path)
	if err != nil {
		return "", fmt.Errorf("resolve database path: %w", err)
	}
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		info, err := os.Stat(filepath.Dir(path))
		if err == nil && !info.IsDir() {
			err = fmt.Errorf("%s is no directory", filepath.Dir(path))
		}
		if err != nil {
			return "", fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
		return "no file yet", nil
	}
	if err := CheckFile(path); err != nil {
		return "", err
	}
	db, err := sql.Open("sqlite", "file:"+(&url.URL{Path: path}).EscapedPath()+"?mode=ro&_pragma=busy_timeout(5000)")
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	version, err := sqliteVersion(ctx, db)
	if err != nil {
		return "", unavailable(err)
	}
	files, err := fs.Glob(sqliteMigrations, "migrations/sqlite/*.sql")
	known := int64(len(files)) // they are numbered from 1
	switch {
	case err != nil:
	case version > known:
		err = newerSchema(version, known)
	case version == known:
		err = checkSQLiteColumns(ctx, db)
	}
	return fmt.Sprintf("a file of schema version %d", version), err
}
