// Package configfile reads the programs' configuration files: one YAML file
// each, decoded into a struct, with every problem reported at once and on its
// line.
//
// A program's own package declares the struct and its rules; a Checker has the
// rules that files have in common: addresses, durations, and whether the
// certificates, keys and secrets that a file names are there, of the right
// kind, and private enough.
//
// The package keeps no secret, starts nothing and watches nothing.
package configfile
