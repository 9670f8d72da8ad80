// Package relay keeps the newest unread count of each mailbox and sees that
// every subscribed device shows it.
//
// An event enters through Stream.Submit, becomes the newest of its mailbox, is
// claimed on each of the mailbox's devices, and leaves through a dispatcher,
// the apns.Source of one app, when a connection to APNs has room. The answers
// come back through Source.Done and settle the event; the stream's reader
// learns of it from Stream.Next.
//
//	Submit -> shard/mailbox -> device -> dispatcher -> apns.Pool
//	Next   <- stream        <- shard  <- device     <- Done
//
// Nothing is queued but keys: a mailbox holds one event, a device one count, a
// dispatcher each device at most once. Memory is bounded by the number of
// mailboxes and devices, never by the rate of events.
//
// At start the relay reads every subscription into memory, in the background.
// A mailbox with which nothing happens is put to rest: packed into a record of
// some eighty bytes, from which the next event wakes it.
//
// # Locks
//
// Four kinds of lock guard the state, always taken in this order and held for
// a few memory operations only:
//
//	shard.mu       the mailboxes of the shard and their links, its counters
//	deviceTable.mu which devices there are, awake and at rest
//	device.mu      one device: what it shows, what is claimed, what is in flight
//	dispatcher.mu, windows.mu, waits.mu, lookups.mu, removals.mu, watches.mu,
//	Stream.mu:     leaves, never nested in each other
//
// appTable.mu is held alone.
//
// What has to happen outside of them (waking a pool or a stream's reader,
// settling a link in another shard, telling who traces) is gathered in effects and applied after.
//
// The package does not speak gRPC or HTTP, does not know tokens, and keeps
// nothing on disk: what is not settled is the agent's to send again.
package relay
