//go:build unix

package apns

import (
	"errors"
	"syscall"
)

const canWriteRaw = true

// errWouldBlock is what a descriptor says that has no room.
var errWouldBlock error = syscall.EAGAIN

// writeRaw writes to a descriptor once.
func writeRaw(fd uintptr, p []byte) (int, error) {
	for {
		n, err := syscall.Write(int(fd), p)
		if !errors.Is(err, syscall.EINTR) {
			return max(n, 0), err
		}
	}
}
