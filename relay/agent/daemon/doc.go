// Package daemon is the mailbox side at work. It finds out which mailboxes have
// a device, has sources watch them, and hands their counts to the relay.
//
//	relay ==WatchMailboxes==> mailboxes --Watch, Count--> sources (imap, dovecot, ews)
//	                              ^                          |
//	relay <==counts== agent <-----+------ sink <-- Counted, Changed
//
// A mailbox's count is asked for when a device subscribes, when a source says
// that it may have changed, and, at a bounded pace, for every mailbox when the
// watch begins anew: at start and whenever the relay has changed. So an agent
// that was away leaves no wrong badge.
//
// A source that has to be told which mailboxes to watch is a source.Watcher,
// one that can be asked is a source.Counter; where several count, each mailbox
// is asked of one after the other until it is counted. Package source has their contract.
//
// The package keeps nothing on disk, opens no listener, and knows no kind of
// mail server.
package daemon
