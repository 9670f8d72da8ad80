package registry

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/gofrs/flock"
)

// Locks are files beside the registry's. They stay when they are unlocked: removing one
// would let two holders have one each.

// LockForRelay makes sure that one relay alone uses the SQLite registry at path: the
// changes of another would not reach its memory. By whichever links the file is named,
// the lock is the same; a file of several names (hard links) is an *InvalidError, since
// SQLite would keep what is not in it yet beside each name. The lock ends with the
// process, however that ends; unlock gives it back before. Beside a file that is no
// registry (SQLiteConfig.Check) nothing is left.
func LockForRelay(ctx context.Context, path string) (unlock func() error, err error) {
	if _, err := (SQLiteConfig{Path: path}).Check(ctx); isMisconfigured(err) {
		return nil, err
	}
	path, err = realPath(path)
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	lock, err := newLock(path + ".relay")
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	locked, err := lock.TryLock()
	switch {
	case err != nil:
		return nil, fmt.Errorf("lock: %w", err)
	case !locked:
		return nil, errors.New("another relay uses this registry; stop it first")
	}
	if err := oneName(path); err != nil {
		return nil, errors.Join(err, lock.Unlock())
	}
	return lock.Unlock, nil
}

// realPath follows the links of a path, as SQLite does, so that whoever uses a file locks
// the same one beside it. A file that is not there yet is in its real directory.
func realPath(path string) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	if found, err := filepath.EvalSymlinks(path); err == nil {
		return found, nil
	}
	dir, err := filepath.EvalSymlinks(filepath.Dir(path))
	return filepath.Join(dir, filepath.Base(path)), err
}

// oneName returns an *InvalidError if a registry that is locked for us has another name.
// What a process that was killed while it made the file (createFile) has left of that
// kind is removed.
func oneName(path string) error {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) { // OpenSQLite makes it
		return nil
	}
	if err != nil || hardLinks(info) < 2 {
		return err
	}
	entries, _ := os.ReadDir(filepath.Dir(path)) // what can't be listed is not removed
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), filepath.Base(path)+".") || !strings.HasSuffix(e.Name(), ".part") {
			continue
		}
		if other, err := e.Info(); err == nil && os.SameFile(info, other) {
			_ = os.Remove(filepath.Join(filepath.Dir(path), e.Name())) // it is seen below where it stays
		}
	}
	if info, err = os.Stat(path); err == nil && hardLinks(info) > 1 {
		return &InvalidError{"path", "has another name (a hard link), and under each name it would be another registry: remove the other one; for a copy there is 'registry backup'"}
	}
	return nil
}

// lockFile waits for an exclusive lock that the system releases with the process.
func lockFile(ctx context.Context, path string) (unlock func() error, err error) {
	const retry = 20 * time.Millisecond // such a lock can't be waited for with a context
	lock, err := newLock(path)
	if err == nil {
		_, err = lock.TryLockContext(ctx, retry)
	}
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return lock.Unlock, nil
}

// newLock makes the file, or takes one that is there from others, who could hold the
// lock for ever.
func newLock(path string) (*flock.Flock, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err == nil {
		err = f.Close()
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	if runtime.GOOS != "windows" { // it has no such modes
		if err := os.Chmod(path, 0o600); err != nil { // whatever the umask took away
			return nil, err
		}
	}
	return flock.New(path, flock.SetPermissions(0o600)), nil
}
