// Package check tries single parts of the way from an organization to its devices: the
// connection to a relay, this machine's clock, and whether APNs takes pushes.
//
// What its findings mean, and what is to be done about them, its callers say.
package check
