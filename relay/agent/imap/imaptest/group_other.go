//go:build !linux

package imaptest

import "syscall"

func ownGroup() *syscall.SysProcAttr { return nil }
