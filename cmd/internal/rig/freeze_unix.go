//go:build unix

package rig

import "syscall"

// Freeze stops the relay's threads where they are, until Thaw.
func (r *Relay) Freeze() error { return r.Signal(syscall.SIGSTOP) }

// Thaw lets a frozen relay go on.
func (r *Relay) Thaw() error { return r.Signal(syscall.SIGCONT) }
