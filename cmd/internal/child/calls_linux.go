package child

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"strconv"
)

// Calls returns how many system calls the process has made to read and write.
func (p *Process) Calls() (c Calls, err error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", p.PID()))
	if err != nil {
		return c, fmt.Errorf("read the system calls of process %d: %w", p.PID(), err)
	}
	// syscr and syscw of proc_pid_io(5).
	lines := bufio.NewScanner(bytes.NewReader(data))
	for lines.Scan() {
		fields := bytes.Fields(lines.Bytes())
		if len(fields) != 2 {
			continue
		}
		n, _ := strconv.ParseUint(string(fields[1]), 10, 64) // the lines that count hold numbers
		switch string(fields[0]) {
		case "syscr:":
			c.Reads = n
		case "syscw:":
			c.Writes = n
		}
	}
	return c, nil
}
