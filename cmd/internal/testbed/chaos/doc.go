// Package chaos runs a relay with everything around it misbehaving, and says
// whether every device shows the right number in the end.
//
// The relay, the simulated Apple and the organizations' mail sites are
// processes of their own. This one is the mailboxes: it changes their counts,
// tells their site, and knows the truth (Truth). A schedule, which follows from
// a seed, kills, stops, pauses and reloads the relay, kills sites, makes Apple
// misbehave in every way the simulator knows, locks, slows or fills the registry
// and makes it read-only, sets the relay's clock wrong, rolls over and takes away
// organizations' keys, disables them, has them flood, and lets devices leave and
// move. Then all trouble ends, and within a bounded time every device has to show
// the newest count of the mailbox it is on.
//
// All organizations call their mailboxes by the same names, and no count of one
// is a count of another, so that a badge that went to the wrong one shows.
//
// The schedule repeats itself with its seed; what coincides with what depends on
// the machine too.
package chaos
