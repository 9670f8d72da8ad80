package report

import (
	"bytes"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"badgerelay/cmd/internal/buildinfo"
)

// Machine is what figures were measured on: the head of every report.
type Machine struct {
	CPU      string    `json:"cpu"`
	Cores    int       `json:"cores"`
	MemoryMB int       `json:"memoryMB"`
	Kernel   string    `json:"kernel"`
	Go       string    `json:"go"`
	Platform string    `json:"platform"`
	Commit   string    `json:"commit,omitempty"` // what badgebench was built from
	Date     time.Time `json:"date"`
}

// here describes this machine. What it does not say stays empty.
func here() Machine {
	return Machine{
		CPU: colonValue("/proc/cpuinfo", "model name"), Cores: runtime.NumCPU(), MemoryMB: memoryMB(),
		Kernel: firstLine("/proc/sys/kernel/osrelease"), Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH,
		Commit: buildinfo.Read().Commit, Date: time.Now().UTC().Truncate(time.Second),
	}
}

func memoryMB() int {
	kB, _ := strconv.Atoi(strings.TrimSuffix(colonValue("/proc/meminfo", "MemTotal"), " kB")) // 0: not said
	return kB >> 10
}

// colonValue returns what a file like /proc/cpuinfo says of name first.
func colonValue(path, name string) string {
	data, _ := os.ReadFile(path) // missing: not said
	for line := range bytes.Lines(data) {
		if key, value, ok := bytes.Cut(line, []byte(":")); ok && string(bytes.TrimSpace(key)) == name {
			return string(bytes.TrimSpace(value))
		}
	}
	return ""
}

func firstLine(path string) string {
	data, _ := os.ReadFile(path) // missing: not said
	line, _, _ := strings.Cut(string(data), "\n")
	return line
}

// Busy returns how much CPU time all processes of the machine have used.
func Busy() time.Duration {
	// proc_stat(5): cpu user nice system idle iowait irq softirq steal, in ticks
	// of a hundredth of a second.
	fields := strings.Fields(firstLine("/proc/stat"))
	var ticks time.Duration
	for i, f := range fields {
		if i == 1 || i == 2 || i == 3 || i == 6 || i == 7 {
			n, _ := strconv.ParseInt(f, 10, 64) // a number
			ticks += time.Duration(n)
		}
	}
	return ticks * (time.Second / 100)
}
