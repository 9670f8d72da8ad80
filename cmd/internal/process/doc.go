// Package process is what the daemons share of a process's life: parts that are
// started one after the other and undone in reverse under one drain budget, the
// log, and the HTTP listeners, among them the one for operators.
//
// It knows nothing of badges, and reads no configuration.
package process
