package daemon

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// lockRegistry makes sure that one relay alone uses the file: another one's
// changes would not reach our memory (registry.SQLite). The lock ends with the
// process, however that ends; unlock gives it back before.
func lockRegistry(path string) (unlock func() error, err error) {
	f, err := os.OpenFile(path+".relay", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if err == nil {
		return f.Close, nil
	}
	_ = f.Close() // the lock's error is the one that matters
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return nil, errors.New("another relay uses this registry")
	}
	return nil, fmt.Errorf("lock: %w", err)
}
