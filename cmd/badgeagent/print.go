package main

import (
	"encoding/json"
	"fmt"
	"io"
	"time"
)

// say prints a line for people; programs that asked for JSON do not get it.
func (a *app) say(format string, args ...any) {
	if a.output == "text" {
		fmt.Fprintf(a.out, format+"\n", args...)
	}
}

// warn prints a warning, whatever the output.
func (a *app) warn(format string, args ...any) {
	fmt.Fprintf(a.err, "WARNING: "+format+"\n", args...)
}

// wouldDo prints what --what-if left undone.
func (a *app) wouldDo(operation, target string) {
	a.say("What if: Performing the operation %q on target %q.", operation, target)
}

// result prints v as JSON if that was asked for.
func (a *app) result(v any) error {
	if a.output != "json" {
		return nil
	}
	encoder := json.NewEncoder(a.out)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	return encoder.Encode(v)
}

// line prints v as one line of JSON.
func (a *app) line(v any) error {
	encoder := json.NewEncoder(a.out)
	encoder.SetEscapeHTML(false)
	return encoder.Encode(v)
}

// field is one line of a list such as Exchange's Format-List prints.
type field struct{ name, value string }

// list prints fields with their colons in one column.
func list(w io.Writer, fields []field) {
	width := 0
	for _, f := range fields {
		width = max(width, len(f.name))
	}
	for _, f := range fields {
		line := fmt.Sprintf("%-*s : %s", width, f.name, f.value)
		if f.value == "" {
			line = line[:len(line)-1]
		}
		fmt.Fprintln(w, line)
	}
}

// title writes a boolean as Exchange does.
func title(b bool) string {
	if b {
		return "True"
	}
	return "False"
}

// exchangeTime is how Exchange prints times in the United States' form.
const exchangeTime = "1/2/2006 3:04:05 PM"

func local(t time.Time) string { return t.Local().Format(exchangeTime) }
func utc(t time.Time) string   { return t.UTC().Format(exchangeTime) }
