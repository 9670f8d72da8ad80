package configfile

import (
	"os"
	"path/filepath"
	"syscall"
)

// Makeable says why this user can't make a file or a directory, with the directories
// above it that are not there; nil: nothing speaks against it. It makes nothing.
func Makeable(path string) error {
	parent := filepath.Dir(path)
	info, err := os.Stat(parent)
	switch {
	case err != nil && parent != path:
		return Makeable(parent)
	case err != nil:
		return err
	case !info.IsDir():
		return syscall.ENOTDIR
	}
	return writable(parent)
}
