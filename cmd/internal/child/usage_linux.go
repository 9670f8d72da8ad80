package child

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ownGroup keeps Ctrl-C at the terminal away from the child, whose end is this
// process's to order, and ends it with this process.
func ownGroup() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// Usage returns what the process has used so far.
func (p *Process) Usage() (Usage, error) { return UsageOf(p.PID()) }

// UsageOf returns what the process of this id has used so far.
func UsageOf(pid int) (Usage, error) {
	u, err := memory(pid)
	if err != nil {
		return Usage{}, err
	}
	// The CPU clock of another process: clock_getcpuclockid(3) makes its id so.
	var at unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|2), &at); err != nil {
		return Usage{}, fmt.Errorf("read the CPU time of process %d: %w", pid, err)
	}
	u.CPU = time.Duration(at.Nano())
	u.At = time.Now()
	return u, nil
}

// memory reads VmRSS and VmHWM (proc_pid_status(5)).
func memory(pid int) (u Usage, err error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return u, fmt.Errorf("read the memory of process %d: %w", pid, err)
	}
	lines := bufio.NewScanner(bytes.NewReader(data))
	for lines.Scan() {
		fields := bytes.Fields(lines.Bytes())
		if len(fields) < 2 {
			continue
		}
		n, _ := strconv.ParseUint(string(fields[1]), 10, 64) // the lines that count hold numbers
		switch string(fields[0]) {
		case "VmRSS:":
			u.Resident = n << 10
		case "VmHWM:":
			u.Peak = n << 10
		}
	}
	return u, nil
}

// ResetPeak makes Usage.Peak count from now.
func (p *Process) ResetPeak() error {
	// 5 resets VmHWM (proc_pid_clear_refs(5)).
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", p.PID()), []byte("5"), 0); err != nil {
		return fmt.Errorf("reset the peak of %s: %w", p.name, err)
	}
	return nil
}
