// Package postgrestest runs private PostgreSQL servers for tests and measurements:
// in a directory of their own, reachable over a unix socket only, as nobody
// where root calls it, because PostgreSQL refuses to run as root. A PostgreSQL
// of the machine is neither read nor disturbed.
//
// [Private] is such a server; [Server] is one that belongs to a test. Unless
// their settings say otherwise they don't wait for the disk: what a process
// acknowledged survives the end of the process, and not that of the machine.
package postgrestest
