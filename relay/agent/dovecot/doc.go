// Package dovecot takes Dovecot's push notifications over HTTP and tells what
// they say of unread counts.
//
//	POST /v1/notify/dovecot?user=...   from deploy/dovecot/badgeagent.lua: every
//	                          change, with the count and its version; no body
//	PUT  /v1/notify/ox        from Dovecot's OX driver: new mail only, with
//	                          sender, subject and text in it
//
// A notification of the first kind says what STATUS says, ordered by
// UIDVALIDITY and HIGHESTMODSEQ, so its count is handed on as it is. One of the
// second kind has no order, so it is only a reason to ask for the count. So is
// one of a folder whose count is added to others'.
//
// An answer is sent at once; Dovecot waits for it. A refusal is a JSON object
// {"error":{"code","message"}} with one of the codes in metrics.go. What a
// notification says of a message (sender, subject, text) is skipped over while
// the members around it are read: it is not decoded, kept or logged, and a
// refusal does not repeat it.
//
// The package asks no mail server. It neither listens nor asks who is there:
// whoever serves it does.
package dovecot
