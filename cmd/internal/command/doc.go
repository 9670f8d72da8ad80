// Package command is what the command lines of all programs share: one form of
// usage errors, flags that check their values, environment variables beside
// flags, text or JSON on standard output, the shape of a probe's result, and
// text from outside made safe for a terminal.
//
// A program builds its tree of cobra commands and hands it to Run, which fills
// in what every command has. Where a command has no Args, its Use line says
// which arguments it takes: "show <domain>" needs one, "check [file]" takes one
// or none, "publish [mailbox=count ...]" any number.
//
// The package knows no badge and no relay, and reads no configuration.
package command
