package config

import _ "embed"

// Example is a file with every setting explained. Load accepts it once the
// files that it names exist, also with its commented-out settings in force.
//
//go:embed example.yaml
var Example string
