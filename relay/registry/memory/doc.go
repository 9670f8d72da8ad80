// Package memory is a registry that lives in the memory of one process, for
// simulations: several relays share one Database, each through a Handle of its
// own, as they share a PostgreSQL.
//
// It keeps the contract of registry.Registry, as registrytest proves. What is
// committed by one handle is seen at once by every other one that asks, and told
// to their listeners when they read the change log: when a notification comes,
// or at the next poll. Changes get their numbers before they are committed, and
// commit in another order where they belong to different organizations, as with
// a sequence.
//
// Whoever makes a handle decides how well it reaches the database: how long a
// call takes, whether it fails, and what becomes of notifications.
//
// It keeps nothing on disk, and no change log is ever purged.
package memory
