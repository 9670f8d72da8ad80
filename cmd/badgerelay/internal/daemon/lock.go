package daemon

import (
	"errors"
	"fmt"

	"github.com/gofrs/flock"
)

// LockRegistry makes sure that one relay alone uses the file: another one's
// changes would not reach our memory (registry.SQLite). The lock ends with the
// process, however that ends; unlock gives it back before.
func LockRegistry(path string) (unlock func() error, err error) {
	lock := flock.New(path+".relay", flock.SetPermissions(0o600))
	locked, err := lock.TryLock()
	switch {
	case err != nil:
		return nil, fmt.Errorf("lock: %w", err)
	case !locked:
		return nil, errors.New("another relay uses this registry")
	}
	return lock.Unlock, nil
}
