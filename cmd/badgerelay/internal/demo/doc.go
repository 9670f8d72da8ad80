// Package demo is the whole way in one process: a simulated Apple with a page
// of phones, the relay with its embedded registry, an organization that signs
// its own tokens, and an agent whose mailboxes change. Keys and certificates
// are made on the spot, in a directory that goes when the demo ends.
//
// With a time to check it changes counts as fast as it can, restarts the relay
// once, and says at the end whether every phone shows what its mailbox holds.
//
// Nothing of it is fit to face a network: it listens on loopback only.
package demo
