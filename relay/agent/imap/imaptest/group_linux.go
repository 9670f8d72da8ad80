package imaptest

import "syscall"

// ownGroup keeps Ctrl-C at the terminal away from Dovecot, whose end is this
// process's to order, and ends it with this process.
func ownGroup() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
}
