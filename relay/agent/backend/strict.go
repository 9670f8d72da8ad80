package backend

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// decode reads data as one JSON object of these members, whose values are *string,
// *bool or *[]string, each at most once. encoding/json is too kind for that: it
// takes names in any case, the last of two, null for anything, and mends text.
func decode(data []byte, members map[string]any) error {
	if !utf8.Valid(data) {
		return malformed("the body is not UTF-8")
	}
	d := json.NewDecoder(bytes.NewReader(data))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return malformed("the body is not a JSON object")
	}
	seen := map[string]bool{}
	for d.More() {
		t, err := d.Token()
		name, ok := t.(string)
		var raw json.RawMessage
		if err != nil || !ok || d.Decode(&raw) != nil {
			return malformed("the body is not JSON")
		}
		to, known := members[name]
		switch {
		case !known:
			return misfit(name, "is no member of this object")
		case seen[name]:
			return misfit(name, "is there twice")
		}
		seen[name] = true
		if err := decodeValue(name, raw, to); err != nil {
			return err
		}
	}
	if _, err := d.Token(); err != nil {
		return malformed("the body is not JSON")
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return malformed("something follows the JSON object")
	}
	return nil
}

// decodeValue reads a value of the type that the member has.
func decodeValue(name string, raw json.RawMessage, to any) error {
	switch to := to.(type) {
	case *string:
		return decodeText(name, raw, to)
	case *bool:
		if raw[0] == 'n' || json.Unmarshal(raw, to) != nil {
			return misfit(name, "is neither true nor false")
		}
	case *[]string:
		var items []json.RawMessage
		if raw[0] == 'n' || json.Unmarshal(raw, &items) != nil {
			return misfit(name, "is not a list")
		}
		*to = make([]string, len(items)) // an empty list is not nil
		for i, item := range items {
			if err := decodeText(fmt.Sprintf("%s[%d]", name, i), item, &(*to)[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

func decodeText(name string, raw json.RawMessage, to *string) error {
	if raw[0] == 'n' || json.Unmarshal(raw, to) != nil {
		return misfit(name, "is not a string")
	}
	if halved(raw) {
		return misfit(name, "has half of a surrogate pair, which is no character")
	}
	return nil
}

// halved reports whether a JSON string escapes half of a surrogate pair, for which
// encoding/json puts U+FFFD.
func halved(raw []byte) bool {
	for i := 0; i < len(raw); i++ {
		if raw[i] != '\\' {
			continue
		}
		i++ // what is escaped
		first, ok := escaped(raw, i)
		if !ok || !utf16.IsSurrogate(first) {
			continue
		}
		i += 6 // the other half's u
		second, ok := escaped(raw, i)
		if !ok || raw[i-1] != '\\' || utf16.DecodeRune(first, second) == utf8.RuneError {
			return true
		}
	}
	return false
}

// escaped reads uXXXX at a place of a string.
func escaped(raw []byte, at int) (rune, bool) {
	if at+5 > len(raw) || raw[at] != 'u' {
		return 0, false
	}
	n, err := strconv.ParseUint(string(raw[at+1:at+5]), 16, 16)
	return rune(n), err == nil
}

// misfit is about a member that is not as the document has it.
func misfit(name, rule string) *problem {
	p := malformed(name + " " + rule)
	p.field = name
	return p
}
