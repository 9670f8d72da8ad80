//go:build !unix

package rig

import "errors"

var errFreeze = errors.New("a process can be frozen on Unix only")

// Freeze does nothing and says so.
func (r *Relay) Freeze() error { return errFreeze }

// Thaw does nothing and says so.
func (r *Relay) Thaw() error { return errFreeze }
