//go:build !linux

package child

import (
	"errors"
	"syscall"
)

var errPlatform = errors.New("processes are measured on Linux only")

func ownGroup() *syscall.SysProcAttr { return nil }

// Usage is not available here.
func (p *Process) Usage() (Usage, error) { return Usage{}, errPlatform }

// UsageOf is not available here.
func UsageOf(int) (Usage, error) { return Usage{}, errPlatform }

// ResetPeak is not available here.
func (p *Process) ResetPeak() error { return errPlatform }
