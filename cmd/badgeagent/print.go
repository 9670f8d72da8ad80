package main

import (
	"time"

	"badgerelay/cmd/internal/command"
)

// result prints v as JSON if that was asked for.
func (a *app) result(v any) error { return a.Print(v, func() {}) }

// dated is a field with a time, if there is one.
func dated(name string, at time.Time) []command.Field {
	if at.IsZero() {
		return nil
	}
	return []command.Field{{name, command.Time(at)}}
}

// exchangeTime is how Exchange prints times in the United States' form.
const exchangeTime = "1/2/2006 3:04:05 PM"

// title writes a boolean as Exchange does.
func title(b bool) string {
	if b {
		return "True"
	}
	return "False"
}
