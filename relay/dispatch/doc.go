// Package dispatch decides when a device is pushed to: it has the queue towards
// APNs of each app, and what keeps a push back.
//
//	          Add           Take               Done
//	owner ---------> Queue -------> apns.Pool -------> Queue ----> owner
//	  ^                                                              |
//	  |                Timers <--- Setback: 429, 5xx <---------------+
//	  +---------------- Due ---+
//
// A Queue implements apns.Source. It is fair between organizations (package fair)
// and holds no counts: a device is asked for its newest one when a connection has
// room. One breaker keeps an app from storming an APNs that answers errors:
//
//	          20 failures in a row              20 accepted in a row
//	closed ------------------------> half-open ----------------------> closed
//	                                  |    ^
//	                                  +----+ one push after a pause, each accepted one
//	                                         lets two more go; a failure ends that
//
// An APNs that refuses the app itself, its credential or its topic, is package
// apns' to wait for, which knows when the credential is another.
//
// Timers holds the devices that wait for a time, and Setback says for how long.
//
// Methods that depend on time take it, as nanoseconds on the owner's clock; nothing
// here reads a clock or starts a goroutine. The owner calls Tick and Due.
//
// # Locks
//
// Queue.mu and Timers.mu are leaves: nothing else is locked under them, and they
// are not held while the owner is called, but for its chance (random) and for the
// function that Timers calls when another time is the earliest: these must not lock.
//
// The package knows no mailboxes, and not what a device is.
package dispatch
