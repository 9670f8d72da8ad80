// Package operator is the operator's commands: each is one conversation with a
// running relay's AdminService, printed for people or, with --output json, as
// the answer's JSON.
//
// The package decides nothing that the relay decides: names, limits and
// certificates go over as they were given, and refusals come back in the
// relay's words with its reason.
package operator
