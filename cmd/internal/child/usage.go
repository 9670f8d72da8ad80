package child

import "time"

// Usage is what a process has used.
type Usage struct {
	At       time.Time     // when this was so
	CPU      time.Duration // user and system, of all threads
	Resident uint64        // bytes of memory now
	Peak     uint64        // the most ever, or since ResetPeak
	Reads    uint64        // system calls, those included that found nothing to read
	Writes   uint64        // the same, or that found no room
}
