// Package strict reads JSON and base64url whole or not at all.
//
// The standard decoders are too kind for tokens: encoding/json keeps the last
// of two members of one name, matches names in any case and mends bad UTF-8,
// and encoding/base64 skips line ends.
package strict
