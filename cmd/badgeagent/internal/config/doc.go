// Package config is the agent daemon's configuration: one YAML file.
//
// The comments on Config's fields are its reference. Every problem of a file is
// reported at once, with its line. The package reads the files that the
// configuration names only to judge them; it starts nothing and watches
// nothing.
package config
