// Package registry keeps who may send and who receives: organizations, their
// credentials, and the subscriptions of devices to mailboxes.
//
// [Registry] is the contract; [SQLite] keeps it in one file. What a call
// acknowledged survives the death of the process and of the machine. Every
// change is told to the listeners of [Registry.OnChange] in the order of the
// commits, before the call that made it returns, so that caches are never
// behind what a caller was told.
//
// The rules of subscriptions live in one place, apart from the database: a
// subscription is unique by organization, mailbox, app and device token; within
// an organization a device of an app is on one mailbox at a time, and leaves
// the old one when it subscribes to another. Between organizations nothing is
// inferred, so nobody can take a device away from somebody else.
//
// The package does not decide who may call it, does not know which apps are
// configured, does not check tokens, and keeps no events and no counts of
// messages.
package registry
