package rig

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"
)

// smallDisk is the size of the small file system: room for a small registry.
const smallDisk = 32 << 20

// mountSmall makes a small file system in a file, and mounts it: ext4, because
// that refuses writes to a file that turned immutable while it was open, which
// one in memory does not.
func mountSmall(file, path string) error {
	f, err := os.Create(file)
	if err != nil {
		return fmt.Errorf("make a small file system: %w", err)
	}
	if err := errors.Join(f.Truncate(smallDisk), f.Close()); err != nil {
		return fmt.Errorf("make a small file system: %w", err)
	}
	// No journal and no blocks for root: what is there is for the registry.
	for _, command := range [][]string{
		{"mkfs.ext4", "-q", "-m", "0", "-O", "^has_journal", file},
		{"mount", "-o", "loop,nodev,nosuid", file, path},
	} {
		if out, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("make a small file system, which needs root, loop devices and e2fsprogs: %s: %w: %s",
				command[0], err, strings.TrimSpace(string(out)))
		}
	}
	return nil
}

func unmount(path string) error {
	if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount the small file system: %w", err)
	}
	return nil
}

// immutable is FS_IMMUTABLE_FL of linux/fs.h.
const immutable = 0x10

// setImmutable makes the file refuse every change, or lets it be changed again
// (ioctl_iflags(2)).
func setImmutable(path string, on bool) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("make the registry read-only: %w", err)
	}
	defer f.Close() // it was only read
	flags, err := unix.IoctlGetUint32(int(f.Fd()), unix.FS_IOC_GETFLAGS)
	if err != nil {
		return fmt.Errorf("make the registry read-only: %w", err)
	}
	flags &^= immutable
	if on {
		flags |= immutable
	}
	if err := unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, int(flags)); err != nil {
		return fmt.Errorf("make the registry read-only: %w", err)
	}
	return nil
}
