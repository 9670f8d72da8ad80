// Package apple is the simulated Apple as a process of its own: the role that
// badgebench runs itself in, and its client.
package apple
