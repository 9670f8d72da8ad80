// Package simulation runs the whole of badgerelay in one process, under fake time
// and in the hands of a seed: one to four relays (packages relay, relay/ingest and
// apns with the native engine, wired as cmd/badgerelay does), two to six agents
// (package relay/agent), the simulated APNs (package apns/apnstest) and one
// registry that all relays share (package relay/registry/memory), over a network
// in memory. After the faults every device has to show the newest count of its
// mailbox.
//
//	make simulate                 new seeds, which are printed
//	make simulate SEEDS=20000     so many of them, on every core
//	make simulate SEED=n          one seed again; TRACE=1 prints what happens,
//	                              VERBOSE=1 what the programs log as well
//
//	make simulate-mutants         plants faults in the product, one at a time, and
//	                              says after how many seeds each was found
//
// The last line that it prints is JSON: what was simulated and what was found. A
// seed that fails is run ten times more, and it says how often it fails again; of
// the first few the schedule is printed, without the steps that the failure does
// not need. `make test` runs a hundred fixed seeds with the race detector; the
// others run without it.
//
// # What a seed decides
//
// How many of everything there are, which agents have a stream and which publish by
// unary calls, and how long tokens live; the changes of mailboxes, and restored ones,
// whose versions go back; devices that come, move and go, and are on several mailboxes of
// one organization or of several; keys that are rolled over,
// organizations that are disabled, and faults: connections that are reset, one-sided,
// slow or cut off for a while; relays killed, lost with their machine, drained, also
// with pushes on their way, and started anew; agents killed, moved and doubled, and
// their clocks set; a registry that is slow, fails, can't be reached, or whose
// notifications are late or lost; and the simulated APNs' whole list of faults.
// Each seed has some of these kinds only (swarm testing: Groce et al., ISSTA 2012).
// After all of them it has one trouble more, alone, so that nothing that comes later
// puts right what follows from it (late.go).
//
// # What is asserted
//
// Within 90 s of simulated time after the last fault every device shows the newest
// count of its mailbox, or the sum of its mailboxes, and goes on to while the mailboxes change. A connection to
// APNs that is broken answers 500 when it is used next, which may be later: that is
// the last fault then. Where after that every connection to APNs stalls, they show
// what comes then within 30 s. No device ever
// shows a count of another organization. Every relay's and every agent's ledger
// balances after each step. On each stream every event is settled once at most,
// and as delivered or unchanged only if its devices have shown the count or a newer
// one. A relay never has two pushes in flight to a device, nor sends a count again
// too soon after a 5xx, and gives the simulated APNs nothing to hold against it.
// In the end nothing is pending and nothing is left running.
//
// # How far a seed repeats itself
//
// Time comes from testing/synctest. What is drawn at random comes from the seed
// (Config.Random of the packages), each process and each connection with a
// sequence of its own. The network delivers one chunk of bytes and waits until
// every goroutine waits before it delivers the next. Not in the seed's hands are
// the scheduler of goroutines, the order of maps, select, the keys of hashes, and
// the lengths of ECDSA signatures. The hash of a run's trace, which holds every
// time to the nanosecond, tells two runs apart; of two runs of one seed about half
// have the same.
//
// # What is not simulated
//
// TLS between agents and relays, because it is what costs most; between relays and
// APNs it is real. Processes that are frozen and go on, and clocks of relays and of
// the database that are set: a bubble has one clock, see cmd/internal/testbed chaos, and
// tests of package relay. An agent's clock shows in what it says of it, observations
// and the name of its process, and not in its tokens. SQL: the registry in memory
// passes the same tests as the others (registrytest). Names, addresses and proxies.
// The metadata follower, the admin service, and the sources of counts at a mail
// server: an agent asks a mailbox in memory.
//
// The probe of a device that APNs called gone by mistake comes after 20 minutes,
// which is longer than a run: such a device signs in anew after the faults.
// Where an app shows no sum across organizations (sum_across_organizations), whose
// counts a device shows is left open, as long as they are one organization's, if
// that depends on how soon relays see things that follow each other within a minute,
// and where an organization is disabled or APNs has called the device gone (owner.go).
//
// Between two agents that serve a mailbox the time of observation orders counts of
// different epochs, so such a mailbox is restored only where no clock is set.
package simulation
