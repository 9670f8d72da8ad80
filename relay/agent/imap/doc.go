// Package imap watches and counts mailboxes of any IMAP server.
//
// Each mailbox is watched on a connection of its own, because IMAP's NOTIFY and
// IDLE belong to a login: over NOTIFY (RFC 5465) where the server has it, else
// over IDLE (RFC 2177), else by asking at intervals. Where there are more
// mailboxes than connections they take turns, each long enough that all have
// had one within the poll interval.
//
//	waiting mailboxes --(free connection)--> turn: count, then watch and count again
//	        ^                                  |
//	        +------ the turn is over ----------+
//
// What a server pushes is a trigger only: the count is then asked, with STATUS
// UNSEEN, or with SEARCH for the folder that IDLE has to select.
// UIDVALIDITY and HIGHESTMODSEQ become epoch and version where the server has
// them. No message is ever fetched, and nothing is changed.
package imap
