//go:build !linux

package dovecottest

import "syscall"

func ownGroup() *syscall.SysProcAttr { return nil }
