// Package diagnosis says why the badge of a mailbox is what it is. What relays and
// the agent know are facts (Facts); Diagnose turns them into a verdict, a code and a
// sentence, and does nothing else; Page prints both. Gathering the facts is the
// callers' business.
package diagnosis
