// Package imap watches and counts mailboxes of any IMAP server.
//
// Each mailbox is watched on a connection of its own, because IMAP's NOTIFY and
// IDLE belong to a login: one folder over IDLE (RFC 2177), which sees the most,
// several over NOTIFY (RFC 5465), or by asking at intervals. Where there are more
// mailboxes than connections, or than the server lets in, they take turns, each
// long enough that all have had one within the poll interval.
//
//	waiting mailboxes --(free connection)--> turn: count, then watch and count again
//	        ^                                  |
//	        +------ the turn is over ----------+
//
// What a server pushes is a trigger only. A count is what people see: messages
// without \Seen and without \Deleted, from STATUS where that says none, else from
// SEARCH in the folder, opened to read only. UIDVALIDITY and HIGHESTMODSEQ become
// epoch and version where the server has them. No message is ever fetched, and
// nothing is changed.
//
// Grammar is taken liberally, and size is bounded: see wire. Three things hold
// connections back, each for what it is about: gate for the server as a whole,
// account for one mailbox's login, limit for how many there may be.
package imap
