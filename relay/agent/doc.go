// Package agent is the Go client library for mailbox agents: programs beside
// a mail server that tell a relay how many unread messages each mailbox has.
//
// An Agent holds the newest unsettled count of each mailbox, one entry a
// mailbox and never more, and sends it over a stream to one of several
// relays. An entry leaves only when the relay reports that very count as
// settled. Everything else (a lost connection, a relay that leaves, a relay
// that was killed) ends in the same way: what is unsettled is sent again on
// the next stream. A count is absolute, so sending it twice does no harm.
//
//	mailbox.Set ----> unsettled set ----> stream to a relay
//	                       ^                      |
//	                       +---- settlements -----+
//
// Of several processes with one agent id the newest is active. The relay tells the
// others to stand by: they keep their streams and hold the newest counts back. It
// tells one to take over when the active one is gone; a stream that opens after that
// is told nothing, and shows it by its settlements. Config.OnTakeover says so, because
// what is held may be older than what the other process sent.
//
// Where there are several relays, one that does not know that a stream has ended
// may push what was in flight on it after the newer count that another relay has
// pushed. Three things prevent it. Each hello numbers the process's streams, so that
// relays end the older ones. A mailbox with a count in flight on a stream whose
// relay drains has its newer counts wait for that. And a mailbox whose count may
// have been in flight is sent once more when every relay has certainly given up,
// even if the count has settled meanwhile: when a stream ends, those that were in
// flight on it; when a process begins or takes over, those that it sends in its
// first minute. A process that stands by leaves that to the active one. Package
// relay has the whole argument.
//
// Every accepted count ends in exactly one place; Ledger says in which:
//
//	submitted = settled by an outcome + replaced by a newer count + unsettled
//
// A Client makes the calls that are not streams: Publish, Subscribe,
// Unsubscribe, List, and Watch, which tells what mailboxes are worth counting.
//
// The package keeps nothing on disk, does not read mailboxes, does not judge
// tokens and does not make certificates: package auth does the last two.
package agent
