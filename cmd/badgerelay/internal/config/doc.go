// Package config is the relay's configuration: one YAML file.
//
// The comments on Config's fields are its reference. The zero value works: it
// serves agents in plain text on loopback and knows no app. Every problem of a
// file is reported at once, with its line.
//
// The package reads files only to judge them (are they there, of the right
// kind, private enough); it keeps no secret, starts nothing and watches
// nothing. What can only be found out by trying, such as a port in use, is
// found out by the daemon.
package config
