package config

import _ "embed"

// Example is a file with every setting explained. Load accepts it as it is,
// and with its commented-out settings put in force once the files exist.
//
//go:embed example.yaml
var Example string
