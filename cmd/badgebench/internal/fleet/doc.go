// Package fleet is a fleet of mailbox agents as processes of their own: the
// agents' real client library, a connection and a stream for each, one event a
// message, and most of the time nothing to say.
//
// Package load makes as many events as a relay takes; this one is about many
// agents that have few.
package fleet
