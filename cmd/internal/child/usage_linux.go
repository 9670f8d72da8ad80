package child

import (
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/prometheus/procfs"
	"golang.org/x/sys/unix"
)

// ownGroup keeps Ctrl-C at the terminal away from the child, whose end is this
// process's to order, and ends it with this process.
func ownGroup() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// Usage returns what the process has used so far; of one that has ended, why.
func (p *Process) Usage() (Usage, error) {
	if err := p.Failure(); err != nil {
		return Usage{}, err
	}
	return UsageOf(p.PID())
}

// UsageOf returns what the process of this id has used so far.
func UsageOf(pid int) (Usage, error) {
	proc, err := procfs.NewProc(pid)
	if err != nil {
		return Usage{}, fmt.Errorf("find process %d: %w", pid, err)
	}
	status, err := proc.NewStatus()
	if err != nil {
		return Usage{}, fmt.Errorf("read the memory of process %d: %w", pid, err)
	}
	io, err := proc.IO()
	if err != nil {
		return Usage{}, fmt.Errorf("read the system calls of process %d: %w", pid, err)
	}
	// The CPU clock of another process: clock_getcpuclockid(3) makes its id so. It is
	// exact, where /proc has hundredths of a second.
	var at unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|2), &at); err != nil {
		return Usage{}, fmt.Errorf("read the CPU time of process %d: %w", pid, err)
	}
	return Usage{At: time.Now(), CPU: time.Duration(at.Nano()), Resident: status.VmRSS, Peak: status.VmHWM, Reads: io.SyscR, Writes: io.SyscW}, nil
}

// ResetPeak makes Usage.Peak count from now.
func (p *Process) ResetPeak() error {
	// 5 resets VmHWM (proc_pid_clear_refs(5)).
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", p.PID()), []byte("5"), 0); err != nil {
		return fmt.Errorf("reset the peak of %s: %w", p.name, err)
	}
	return nil
}
