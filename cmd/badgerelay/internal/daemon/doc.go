// Package daemon is the running relay: it builds every part from a
// configuration, connects them, and takes them down in the order that loses
// nothing.
//
// run in daemon.go is the map: sinks are built first and stopped last, sources
// the other way round, each under its name in the log. While it runs, SIGHUP
// reads the configuration again; what can change is swapped as whole values,
// and a file that is wrong leaves everything as it was.
//
// The package holds no logic of badges, tokens or pushes, and does not survive
// its own death: whoever starts it restarts it.
package daemon
