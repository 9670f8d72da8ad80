// Package wholeway sets up everything between a mail and a badge, for tests and
// demonstrations: a private Dovecot, an agent, a relay and a simulated Apple,
// each a process of its own, enrolled by the commands that administrators and
// operators use.
//
//	LMTP --> Dovecot --> badgeagent run --> badgerelay serve --> apnssim
//
// All of it lives in one directory and on loopback, and ends with Close, or
// with this process.
//
// The package judges nothing: it delivers, reads, kills and restarts, and tells
// what the phones show.
package wholeway
