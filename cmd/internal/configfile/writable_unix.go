//go:build unix

package configfile

import "golang.org/x/sys/unix"

// writable says why this user can't make anything in a directory; nil: nothing
// speaks against it.
func writable(dir string) error { return unix.Access(dir, unix.W_OK|unix.X_OK) }
