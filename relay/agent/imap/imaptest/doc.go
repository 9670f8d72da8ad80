// Package imaptest runs a private Dovecot for tests and demonstrations: a
// real imapd and lmtpd in a directory of their own, on a free loopback port
// and a unix socket, as whatever user calls it. A Dovecot of the machine is
// neither read nor disturbed.
//
// Every user exists, with Password; a master user named Master reads all
// mailboxes as user*Master. Mail is delivered over LMTP and kept as Maildir.
//
// It is this machine's, 2.3 or 2.4. With DOVECOT_ROOT it is the Dovecot 2.4 of
// another system in a directory, which needs root: make test-dovecot24.
//
// The package does not judge what Dovecot does, and knows no badges.
package imaptest
