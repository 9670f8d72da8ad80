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
// # Several relays
//
// Any number of relays may serve the same mailboxes; Config.Afterlife says so.
// Versions order the events that one relay remembers, and no more. That no older
// count follows a newer one that another relay has pushed rests on this:
//
//  1. A mailbox is at one relay at a time, because its agent has one stream. Where
//     a relay leaves and asks its agents to open another, they hold a mailbox's
//     newer counts back while an older one is unsettled on the stream they leave.
//  2. What is pending when its stream closes is withdrawn from the devices,
//     wherever it waits: for the window, a pause, a 5xx, room at APNs, a
//     connection. A push that was lost is not sent again. Only what is at the
//     socket goes on.
//  3. A relay that does not know that the stream is dead hears of the agent's next
//     one within milliseconds, and closes it (relay/ingest, Peers). If it hears
//     nothing, the connection counts as dead after 20 seconds of silence.
//  4. What is at the socket is answered or given up in 30 seconds (package apns),
//     and what the system has not sent by then it forgets.
//  5. So when Afterlife has passed since the stream's end, nothing older than the
//     end comes any more. Then the agent sends the newest counts of those mailboxes
//     once more that were in flight on it (relay/agent). The relay pushes them,
//     even if it has pushed the same before: it takes for shown only what was
//     accepted when a stream was older than Afterlife.
//
// Points 1 to 3 leave a wrong badge a chance of milliseconds, and 5 puts it right.
// It does not hold for a relay that was stopped for longer than Afterlife, as a
// frozen virtual machine is, and then goes on; nor where a proxy between answers
// in the name of an agent that is gone; nor for an agent that is killed together
// with its machine and starts elsewhere within 20 seconds, without a memory of
// what was in flight. Two agents that serve one mailbox at two relays are not
// ordered at all, except by what they send last.
//
// # Locks
//
// Four kinds of lock guard the state, always taken in this order and held for
// a few memory operations only, save Stream.submitting, which comes before
// them and is held for a batch:
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
