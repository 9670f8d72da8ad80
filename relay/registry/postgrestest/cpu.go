package postgrestest

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// children returns the ids of the running server's other processes; none where
// the system, which is not Linux then, does not say.
func (p *Private) children() []string {
	list, _ := os.ReadFile(fmt.Sprintf("/proc/%[1]d/task/%[1]d/children", p.process.Process.Pid)) // as above
	return strings.Fields(string(list))
}

// CPU returns how much CPU time the running server has used, all its processes
// together, to a hundredth of a second; 0 where the system does not say.
func (p *Private) CPU() time.Duration {
	all := ticks(strconv.Itoa(p.process.Process.Pid), true)
	for _, child := range p.children() {
		all += ticks(child, false)
	}
	return all * (time.Second / 100)
}

// ticks reads a process's time from proc_pid_stat(5): after the name in
// brackets, utime and stime are the 12th and 13th, and those of its children
// that have ended the next two.
func ticks(pid string, ended bool) (n time.Duration) {
	stat, _ := os.ReadFile("/proc/" + pid + "/stat") // it may have ended
	_, rest, _ := strings.Cut(string(stat), ") ")
	for i, f := range strings.Fields(rest) {
		if i == 11 || i == 12 || ended && (i == 13 || i == 14) {
			v, _ := strconv.ParseInt(f, 10, 64) // a number
			n += time.Duration(v)
		}
	}
	return n
}
