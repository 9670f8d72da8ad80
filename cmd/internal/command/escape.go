package command

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// Escape returns s with everything that a terminal would obey or hide, such as
// control characters, changes of direction and bytes that are no UTF-8, written
// as \x1b or \u202e. Certificates' subjects, mailboxes and names of agents come
// from outside.
func Escape(s string) string {
	if printable(s) {
		return s
	}
	var b strings.Builder
	for len(s) > 0 {
		_, size := utf8.DecodeRuneInString(s)
		char := s[:size]
		if !printable(char) {
			quoted := strconv.QuoteToASCII(char)
			char = quoted[1 : len(quoted)-1]
		}
		b.WriteString(char)
		s = s[size:]
	}
	return b.String()
}

// Visible is Escape for a value that stands by itself, such as a table's cell: one that
// begins or ends with a space is in quotes, because nobody would see that.
func Visible(s string) string {
	if strings.TrimSpace(s) != s {
		return strconv.Quote(s)
	}
	return Escape(s)
}

func printable(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}

// safe escapes what may hold text from outside.
func safe(args []any) []any {
	out := make([]any, len(args))
	for i, a := range args {
		switch v := a.(type) {
		case string:
			out[i] = Escape(v)
		case error:
			out[i] = Escape(v.Error())
		case fmt.Stringer:
			out[i] = Escape(v.String())
		default:
			out[i] = a
		}
	}
	return out
}

// escapeJSON writes what a terminal would obey, and encoding/json leaves as it
// is, as \u escapes, which mean the same.
func escapeJSON(s string) string {
	if printable(strings.ReplaceAll(s, "\n", "")) {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if r == '\n' || unicode.IsPrint(r) {
			b.WriteRune(r)
			continue
		}
		for _, unit := range utf16.AppendRune(nil, r) {
			fmt.Fprintf(&b, `\u%04x`, unit)
		}
	}
	return b.String()
}
