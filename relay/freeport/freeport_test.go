package freeport

import (
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
)

const many = 200 // enough that ports picked at random come twice

func take(t *testing.T) []string {
	t.Helper()
	var all []string
	for range many {
		address, err := Address()
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, address)
	}
	return all
}

// No address is given twice, neither by this process nor by another one at the
// same time, and each can be listened on.
func TestAddress(t *testing.T) {
	if os.Getenv("ANOTHER_PROCESS") != "" {
		t.Log("took " + strings.Join(take(t), " "))
		return
	}
	mine := take(t)
	runtime.GC()
	another := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^TestAddress$", "-test.v")
	another.Env = append(os.Environ(), "ANOTHER_PROCESS=yes")
	out, err := another.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	_, list, _ := strings.Cut(string(out), "took ")
	list, _, _ = strings.Cut(list, "\n")
	theirs := strings.Fields(list)
	if len(theirs) != many {
		t.Fatalf("the other process took %d, want %d: %s", len(theirs), many, out)
	}
	seen := map[string]bool{}
	for _, address := range append(theirs, mine...) {
		if seen[address] {
			t.Errorf("%s was given twice", address)
		}
		seen[address] = true
	}
	for _, address := range mine {
		l, err := net.Listen("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		_ = l.Close() // nothing was accepted
	}
}
