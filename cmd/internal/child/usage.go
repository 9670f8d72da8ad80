package child

import "time"

// Usage is what a process has used.
type Usage struct {
	At       time.Time     // when this was so
	CPU      time.Duration // user and system, of all threads
	Resident uint64        // bytes of memory now
	Peak     uint64        // the most ever, or since ResetPeak
}

// Calls is how many system calls a process has made since it began.
type Calls struct {
	Reads, Writes uint64 // those included that found nothing to read, or no room
}
