// Package pusher is the client of Apple's side as a process of its own: pools
// of apns with as much work as they take, or with a given rate, and nothing
// else of the relay.
package pusher
