// Package apnstest is a simulator of Apple's push service, strict where
// clients are commonly wrong.
//
// A Simulator speaks HTTP/2 through its own framing, so that it can also
// misbehave at the level of frames. Each refusal cites the rule it rests on
// (Rule), in the history and in the logs. It keeps a model of the devices
// (Device): of which topic and environment, registered or not since when, on
// line or not, and the badge now shown. It counts what a client did that Apple
// would hold against it (ClientFaults), and injects faults (Faults), at a
// seeded random rate, when told to (Inject, Trigger) or by script (Next).
//
// A test dials it in memory, inside a testing/synctest bubble too:
//
//	sim, err := apnstest.New(apnstest.Config{TeamKeys: keys})
//	sim.RegisterDevice(token, "com.example.mail", apnstest.Production, apnstest.Meta{})
//	conn, err := sim.Dial(ctx, "tcp", "api.push.apple.com:443") // then TLS with sim.RootCAs
//	...
//	sim.Close()
//
// One goroutine reads a connection and one writes it; there is none per push.
// With Config.Fast the history and the costlier checks are left out, for
// benchmarks.
//
// The facts come from Apple's pages and from what others observed, read
// 2026-11; each rule in rule.go says which. Where Apple is free to differ, the
// faults differ on purpose.
//
// It does not simulate broadcast channels, Apple's feedback statistics, DNS,
// or the device's user interface beyond its badge; it keeps nothing on disk;
// and it opens no listener itself.
package apnstest
