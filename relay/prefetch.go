//go:build amd64 || arm64

package relay

import "unsafe"

// prefetch asks for size bytes of memory from p on and does not wait for them.
// It never faults and changes nothing: a p that is not true any more does no
// harm.
//
// Without it an event of one of a million mailboxes costs three times the wait
// for memory, one after the other. The compiler has no word for it.
//
//go:noescape
func prefetch(p unsafe.Pointer, size uintptr)
