//go:build unix

package certs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// KeepOwner gives what root has made to the owner of the directory that it is in, who
// has to read it later. For others than root there is nothing to do.
//
// That owner may put anything in the place of path meanwhile: a link, or a second name of
// a file that is root's, is left as it is.
func KeepOwner(path string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	dir, err := os.Stat(filepath.Dir(path))
	if err != nil {
		return err
	}
	owner := dir.Sys().(*syscall.Stat_t)
	if owner.Uid == 0 {
		return nil
	}
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, unix.ELOOP) {
		return nil // it is a link
	}
	if err != nil {
		return err
	}
	defer f.Close() // nothing was written
	info, err := f.Stat()
	if err != nil {
		return err
	}
	made := info.Sys().(*syscall.Stat_t)
	switch {
	case made.Uid != 0:
		return nil
	case !info.IsDir() && (!info.Mode().IsRegular() || made.Nlink != 1):
		return fmt.Errorf("%s is no plain file of one name, and stays root's", path)
	}
	return f.Chown(int(owner.Uid), int(owner.Gid))
}
