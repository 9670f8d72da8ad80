// Package site is an organization's mail site as a process of its own: an
// agent and a client of the real library, relay/agent, which sign their tokens
// with the organization's certificate store. It keeps nothing: what it does not
// hold any more after it was killed, its mailboxes tell it again.
package site
