// Package ingest is the relay's gRPC door: it turns the wire into the relay's
// terms and back, checks who is calling, and says in one place what a refusal
// looks like. It decides nothing about badges.
//
// Server holds what agents talk to: RelayService, SubscriptionService, health and
// reflection. What operators talk to is package admin.
//
//	agent -> service.Calls (metrics, status) -> auth -> handler -> relay, registry
//
// Every call acts within the organization of its Principal, which comes from
// the verified token and nowhere else; no request message of an agent names an
// organization.
//
// A stream of an agent has two goroutines: the handler's own, which ends the
// stream when its token, its credential, its organization or the relay goes; and
// one that reads, and is slowed when the relay takes no more. A third one sends,
// while there is something to send.
//
// # Locks
//
// agents.mu comes first, then agentStream.mu, then sender.mu. How they stand to the locks
// of package relay is told there; its pulse.mu comes before agentStream.mu.
//
// The package does not validate tokens (auth does), keeps nothing that outlives a call
// but counters, allowances and which streams are open, and does not tell relay or auth
// about changes of the registry by itself: whoever builds the process does, with Tell.
package ingest
