//go:build !unix

package apns

import "errors"

// canWriteRaw is false where a write that waits is the system's: only its
// beginning is guarded.
const canWriteRaw = false

var errWouldBlock = errors.New("no room")

func writeRaw(uintptr, []byte) (int, error) { return 0, errors.ErrUnsupported }
