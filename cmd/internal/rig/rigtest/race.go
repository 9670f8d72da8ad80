//go:build race

package rigtest

var raceFlags = []string{"-race"}
