package registry

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"time"

	"github.com/gofrs/flock"
)

// Locks are files beside the registry's. They stay when they are unlocked: removing one
// would let two holders have one each.

// LockForRelay makes sure that one relay alone uses the SQLite registry at path: the
// changes of another would not reach its memory. The lock ends with the process,
// however that ends; unlock gives it back before. Beside a file that is no registry
// (SQLiteConfig.Check) nothing is left.
func LockForRelay(ctx context.Context, path string) (unlock func() error, err error) {
	if _, err := (SQLiteConfig{Path: path}).Check(ctx); isMisconfigured(err) {
		return nil, err
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
	return lock.Unlock, nil
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
