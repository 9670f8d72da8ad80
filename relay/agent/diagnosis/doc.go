// Package diagnosis says why the badge of a mailbox is what it is. What relays and
// the organization's agent know are facts (Facts); Diagnose turns them into a verdict,
// a code and a sentence, and Page sets both out for people. A running agent is asked
// on its socket (Ask, Handler).
//
// It asks no relay, and prints nothing.
package diagnosis
