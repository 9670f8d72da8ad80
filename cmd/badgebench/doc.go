// Command badgebench measures what badgerelay costs.
//
// Each command starts what it measures as processes of their own, on loopback:
// the relay as it is installed, apnssim, which simulates Apple, and load generators,
// which are badgebench again in another role. All of it ends, and everything written
// is removed, when the command does.
//
//	badgebench relay --mailboxes 100000 --duration 10s --repeat 5
//
// prints a table, machine, settings, and each figure as the median of the runs with
// the least and the greatest, and below it each run in the form that benchstat
// reads; or all of it as JSON with --output json. A run in
// which a device showed a wrong number, or in which the simulated Apple found
// fault with its client, counts for nothing: it is named, no figure is quoted,
// and the exit code is 1.
//
// README.md beside this file explains each command and what its figures mean.
package main
