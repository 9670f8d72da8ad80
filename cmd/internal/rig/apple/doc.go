// Package apple is the simulated Apple as a process of its own: the role that
// a program runs itself in, and its client.
package apple
