//go:build unix

package postgrestest

import (
	"os"
	"syscall"
)

// hold stops a process where it is. It may have ended.
func hold(p *os.Process) { _ = p.Signal(syscall.SIGSTOP) }
