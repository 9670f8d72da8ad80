// Package registry keeps who may send and who receives: organizations, their
// credentials, and the subscriptions of devices to mailboxes.
//
// [Registry] is the contract; [SQLite] keeps it in one file, [Postgres] in a
// database that several relays share. What a call acknowledged survives the
// death of the process and of the machine. Every change is told to the
// listeners of [Registry.OnChange] in the order of the commits, before the call
// that made it returns, so that caches are never behind what a caller was told.
//
// # Where things are
//
// Both registries are one store (store*.go) on a database (sqlite*.go,
// postgres*.go). Each thing is in one place:
//
//   - The rules of subscriptions, without a database: subscribe_tx.go. A subscription is
//     unique by organization, mailbox, app and device token; a device that comes
//     to a mailbox leaves the organization's others, unless it says otherwise or
//     declares its whole list. Between organizations nothing is inferred, so
//     nobody can take a device away from somebody else.
//   - The rules of other arguments: validate.go, organization.go, certificate.go.
//   - A statement and the reading of its rows: with the method that does it, in
//     store_*.go, once, in words that both databases understand: arguments by
//     number, names from outside as bytes, times in milliseconds. Many rows go
//     as the table k, see table. What a transaction reads before it decides,
//     and what it writes then, is queued, and takes one trip each.
//   - What the databases say differently: a member of dialect, with a value in
//     sqlite_statement.go and postgres_statement.go. What they do differently
//     (transactions, connections, errors that pass, the change feed between
//     relays): a method of database.
//   - Tables: migrations, a directory for each database.
//
// Every rule and statement is tried on both by registrytest.
//
// PostgreSQL is spoken to through pgx itself: database/sql can't send several
// statements in one trip, and trips are most of what a registration takes.
//
// The package does not decide who may call it, does not know which apps are
// configured, does not check tokens, and keeps no events; of counts of messages it
// keeps those of shared devices' mailboxes, see [relay.SharedDevice] and
// store_shared.go.
package registry
