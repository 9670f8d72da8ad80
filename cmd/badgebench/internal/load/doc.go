// Package load is the load generator: mailbox agents as a process of their own
// that stream events to a relay as fast as it settles them, or at a rate.
//
// It must never be what limits, so it speaks the contract's wire by hand: one
// buffer a batch, no message objects, no library of ours. Every event changes
// its mailbox's count, so that each can become a badge. It remembers the newest
// version of each mailbox, which is what its devices have to show in the end,
// and the latency of every event that was delivered.
//
// It does not reconnect: a stream that ends is an error of the measurement.
package load
