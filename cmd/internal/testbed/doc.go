// Command testbed sets up everything between a mail and a badge: a private
// Dovecot, an agent, a relay and a simulated Apple, each a process of its own,
// enrolled by the commands that administrators and operators use.
//
//	LMTP --> Dovecot --> badgeagent serve --> badgerelay serve --> apnssim
//
// The tests beside it judge what the phones show. As a program it shows the
// same to a person, and measures it: make demo-dovecot and make dovecot-burst
// run it. testbed chaos (make chaos) has no mail server, and everything else
// killed, frozen and cut off; package chaos says how. It is no part of what is
// installed.
//
// All of it lives in one directory and on loopback, and ends with Close, or
// with this process.
package main
