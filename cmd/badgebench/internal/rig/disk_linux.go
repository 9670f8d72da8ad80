package rig

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// mountSmall mounts a file system in memory that holds a small registry.
func mountSmall(path string) error {
	if err := unix.Mount("tmpfs", path, "tmpfs", unix.MS_NODEV|unix.MS_NOSUID, "size=32m"); err != nil {
		return fmt.Errorf("mount a small file system, which needs root: %w", err)
	}
	return nil
}

func unmount(path string) error {
	if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount the small file system: %w", err)
	}
	return nil
}
