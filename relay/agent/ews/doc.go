// Package ews watches and counts the mailboxes of an Exchange Server
// (on-premises) through Exchange Web Services.
//
//	mailboxes -> groups of up to 200 -> one streaming connection each
//	               | subscribe, count: a few short requests at a time
//	               v
//	          newest count of each mailbox -> Sink
//
// A subscription tells of one mailbox, and one hanging connection tells of 200
// subscriptions: 4,000 mailboxes are 20 connections. The mailboxes of a group
// live on one server: the first one that could be subscribed is the group's
// anchor, and every request of the group carries its affinity.
//
// EWS has no version of a count: counts are ordered by arrival. What keeps them
// right is that a count in flight is asked for anew when an event comes
// meanwhile, that one goroutine hands them on, the newest of each mailbox, and
// that every mailbox of a group is counted after each subscription and each
// opening of its stream. Nothing is resumed by watermark.
//
// The package does not send mail, reads no message, and does not serve Exchange
// Online, which has no Exchange Web Services any more.
package ews
