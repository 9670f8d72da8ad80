// Package chaos runs a relay with everything around it misbehaving, and says
// whether every device shows the right number in the end.
//
// The relay, the simulated Apple and the organization's mail sites are
// processes of their own. This one is the mailboxes: it changes their counts,
// tells their site, and knows the truth (Truth). A schedule, which follows from
// a seed, kills, stops, pauses and reloads the relay, kills sites, makes Apple
// misbehave in every way the simulator knows, locks or fills the registry,
// rolls the organization's key over, and lets devices leave and move. Then all
// trouble ends, and within a bounded time every device has to show the newest
// count of the mailbox it is on.
//
// The schedule repeats itself with its seed; what coincides with what depends on
// the machine too. The system's clock is not touched: nothing can step it for
// one process alone. A read-only registry is not among the faults, because a
// file that is open for writing stays so.
package chaos
