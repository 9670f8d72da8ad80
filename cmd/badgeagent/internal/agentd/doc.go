// Package agentd is the running agent: the mailbox side's daemon. It finds out
// which mailboxes have a device, watches them through its sources, and hands
// their counts to the relay.
//
//	relay ==WatchMailboxes==> mailboxes -----> imap (watch, count)
//	                           ^     |              |
//	dovecot notifications -----+     +--> agent ==counts==> relay
//
// A mailbox's count is asked for when a device subscribes, when a source says
// that it may have changed, and, at a bounded pace, for every mailbox when the
// watch begins anew: at start and whenever the relay has changed. So an agent
// that was away leaves no wrong badge.
//
// The package keeps nothing on disk and parses no mail.
package agentd
