package machine

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// BusyTree returns how much CPU time a process and its children have used,
// those included that have ended and were waited for; to a hundredth of a
// second. 0: this system does not say.
func BusyTree(pid int) time.Duration {
	all := ticks(pid, true)
	children, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid)) // missing: not said
	for _, child := range strings.Fields(string(children)) {
		id, _ := strconv.Atoi(child) // a number
		all += ticks(id, false)
	}
	return all * (time.Second / 100)
}

// ticks reads a process's time from proc_pid_stat(5): after the name in
// brackets, utime and stime are the 12th and 13th, those of its ended children
// the next two.
func ticks(pid int, ended bool) (n time.Duration) {
	_, rest, _ := strings.Cut(firstLine(fmt.Sprintf("/proc/%d/stat", pid)), ") ")
	for i, f := range strings.Fields(rest) {
		if i == 11 || i == 12 || ended && (i == 13 || i == 14) {
			v, _ := strconv.ParseInt(f, 10, 64) // a number
			n += time.Duration(v)
		}
	}
	return n
}
