// Package registrytest holds every implementation of registry.Registry to the
// same contract: a test of the implementation calls [Run].
//
// It knows nothing about files, servers and how a database fails; that is for
// the tests of each implementation.
package registrytest
