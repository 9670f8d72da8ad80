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

// createFile creates the file if there is none. SQLite would do it with the
// umask's mode, and gives -wal and -shm the mode of the file. A file that exists
// is not touched: to close it would release the locks that another connection
// of this process has on it (POSIX, close).
func createFile(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return checkFile(path)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	err = f.Chmod(0o600) // whatever the umask took away
	if runtime.GOOS == "windows" {
		err = nil // it has no such modes
	}
	return errors.Join(err, f.Close())
}

// checkFile returns an *InvalidError for what is no file: SQLite would wait for a named
// pipe for ever, and a directory must keep its mode. One that is not there is none.
func checkFile(path string) error {
	info, err := os.Stat(path)
	if err == nil && info.IsDir() {
		return &InvalidError{"path", "is a directory"}
	}
	if err == nil && !info.Mode().IsRegular() {
		return &InvalidError{"path", "is no regular file"}
	}
	if _, linked := os.Lstat(path); linked == nil && errors.Is(err, fs.ErrNotExist) {
		return &InvalidError{"path", "is a link to a file that is not there"}
	}
	return nil
}

// closeToOthers takes the right to open the file, and what SQLite keeps beside
// it, from everybody but its owner. What can't be taken is an *InvalidError.
func (f *sqliteFile) closeToOthers(path string) error {
	if runtime.GOOS == "windows" { // it has no such modes
		return nil
	}
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
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
	if err := checkFile(path); err != nil {
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
