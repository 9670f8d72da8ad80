//go:build unix

package process

import "syscall"

// OpenFiles returns how many files the process may have open; 0: that is not
// known. Go has raised it to the hard limit.
func OpenFiles() uint64 {
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) != nil {
		return 0
	}
	return uint64(limit.Cur) //nolint:unconvert // on some systems it is signed
}
