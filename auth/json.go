package auth

import (
	"errors"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// The standard decoders are too kind for tokens: encoding/json keeps the last
// of two members of one name, matches names in any case and mends bad UTF-8.
// This reader takes one JSON text (RFC 8259) whole or not at all.

// Bounds of a JSON text. Depth is what a metadata document needs and a token
// may have; the number of members keeps the search for duplicates cheap.
const (
	maxJSONDepth    = 4
	maxJSONChildren = 64
)

var errJSON = errors.New("not a strict JSON text")

// jsonKind is what a value is.
type jsonKind uint8

const (
	jsonNull jsonKind = iota
	jsonBool
	jsonNumber
	jsonString
	jsonArray
	jsonObject
)

// jsonValue is one value and all below it.
type jsonValue struct {
	kind jsonKind
	// text is a string's content, or the literal of a number or bool.
	text    string
	members []jsonMember // of an object, each name once
	items   []jsonValue  // of an array
}

type jsonMember struct {
	name  string
	value jsonValue
}

// member returns the object's member of exactly this name.
func (v *jsonValue) member(name string) (*jsonValue, bool) {
	for i := range v.members {
		if v.members[i].name == name {
			return &v.members[i].value, true
		}
	}
	return nil, false
}

// anyMember reports whether an object in v, v included, has a member that
// match accepts.
func (v *jsonValue) anyMember(match func(name string) bool) bool {
	for i := range v.members {
		if match(v.members[i].name) || v.members[i].value.anyMember(match) {
			return true
		}
	}
	for i := range v.items {
		if v.items[i].anyMember(match) {
			return true
		}
	}
	return false
}

// parseJSONObject reads data as one object with nothing behind it but white
// space. Everything that is not strictly right is errJSON.
func parseJSONObject(data []byte) (*jsonValue, error) {
	r := jsonReader{data: data}
	r.space()
	v, ok := r.value(1)
	r.space()
	if !ok || v.kind != jsonObject || r.at != len(data) {
		return nil, errJSON
	}
	return &v, nil
}

type jsonReader struct {
	data []byte
	at   int
}

func (r *jsonReader) peek() byte {
	if r.at < len(r.data) {
		return r.data[r.at]
	}
	return 0
}

func (r *jsonReader) space() {
	for r.at < len(r.data) {
		switch r.data[r.at] {
		case ' ', '\t', '\r', '\n':
			r.at++
		default:
			return
		}
	}
}

// take steps over c if it is next.
func (r *jsonReader) take(c byte) bool {
	if r.at < len(r.data) && r.data[r.at] == c {
		r.at++
		return true
	}
	return false
}

func (r *jsonReader) literal(s string) bool {
	if len(r.data)-r.at < len(s) || string(r.data[r.at:r.at+len(s)]) != s {
		return false
	}
	r.at += len(s)
	return true
}

func (r *jsonReader) value(depth int) (jsonValue, bool) {
	switch c := r.peek(); {
	case c == '{':
		return r.object(depth)
	case c == '[':
		return r.array(depth)
	case c == '"':
		s, ok := r.string()
		return jsonValue{kind: jsonString, text: s}, ok
	case c == 't':
		return jsonValue{kind: jsonBool, text: "true"}, r.literal("true")
	case c == 'f':
		return jsonValue{kind: jsonBool, text: "false"}, r.literal("false")
	case c == 'n':
		return jsonValue{kind: jsonNull}, r.literal("null")
	}
	s, ok := r.number()
	return jsonValue{kind: jsonNumber, text: s}, ok
}

func (r *jsonReader) object(depth int) (jsonValue, bool) {
	v := jsonValue{kind: jsonObject}
	if depth > maxJSONDepth || !r.take('{') {
		return v, false
	}
	r.space()
	if r.take('}') {
		return v, true
	}
	for {
		name, ok := r.string()
		if !ok || len(v.members) == maxJSONChildren {
			return v, false
		}
		if _, again := v.member(name); again {
			return v, false
		}
		r.space()
		if !r.take(':') {
			return v, false
		}
		r.space()
		child, ok := r.value(depth + 1)
		if !ok {
			return v, false
		}
		v.members = append(v.members, jsonMember{name, child})
		r.space()
		if r.take('}') {
			return v, true
		}
		if !r.take(',') {
			return v, false
		}
		r.space()
	}
}

func (r *jsonReader) array(depth int) (jsonValue, bool) {
	v := jsonValue{kind: jsonArray}
	if depth > maxJSONDepth || !r.take('[') {
		return v, false
	}
	r.space()
	if r.take(']') {
		return v, true
	}
	for {
		if len(v.items) == maxJSONChildren {
			return v, false
		}
		child, ok := r.value(depth + 1)
		if !ok {
			return v, false
		}
		v.items = append(v.items, child)
		r.space()
		if r.take(']') {
			return v, true
		}
		if !r.take(',') {
			return v, false
		}
		r.space()
	}
}

func (r *jsonReader) digits() bool {
	start := r.at
	for c := r.peek(); c >= '0' && c <= '9'; c = r.peek() {
		r.at++
	}
	return r.at > start
}

func (r *jsonReader) number() (string, bool) {
	start := r.at
	r.take('-')
	if !r.take('0') && !r.digits() {
		return "", false
	}
	if r.take('.') && !r.digits() {
		return "", false
	}
	if r.take('e') || r.take('E') {
		if !r.take('+') {
			r.take('-')
		}
		if !r.digits() {
			return "", false
		}
	}
	return string(r.data[start:r.at]), true
}

func (r *jsonReader) string() (string, bool) {
	if !r.take('"') {
		return "", false
	}
	start := r.at
	var unescaped []byte // nil until the first escape
	for r.at < len(r.data) {
		c := r.data[r.at]
		switch {
		case c == '"':
			s := r.data[start:r.at]
			if unescaped != nil {
				s = unescaped
			}
			r.at++
			return string(s), utf8.Valid(s)
		case c < 0x20:
			return "", false
		case c == '\\':
			if unescaped == nil {
				unescaped = append(make([]byte, 0, 64), r.data[start:r.at]...)
			}
			char, ok := r.escape()
			if !ok {
				return "", false
			}
			unescaped = utf8.AppendRune(unescaped, char)
		default:
			if unescaped != nil {
				unescaped = append(unescaped, c)
			}
			r.at++
		}
	}
	return "", false
}

// escape reads one escape, a surrogate pair as one; half a pair is refused.
func (r *jsonReader) escape() (rune, bool) {
	r.at++ // the backslash
	c := r.peek()
	r.at++
	switch c {
	case '"', '\\', '/':
		return rune(c), true
	case 'b':
		return '\b', true
	case 'f':
		return '\f', true
	case 'n':
		return '\n', true
	case 'r':
		return '\r', true
	case 't':
		return '\t', true
	case 'u':
		high, ok := r.hex4()
		if !ok || !utf16.IsSurrogate(high) {
			return high, ok
		}
		if !r.literal(`\u`) {
			return 0, false
		}
		low, ok := r.hex4()
		pair := utf16.DecodeRune(high, low)
		return pair, ok && pair != utf8.RuneError
	}
	return 0, false
}

func (r *jsonReader) hex4() (rune, bool) {
	if len(r.data)-r.at < 4 {
		return 0, false
	}
	for _, c := range r.data[r.at : r.at+4] {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') && (c < 'A' || c > 'F') {
			return 0, false
		}
	}
	n, err := strconv.ParseUint(string(r.data[r.at:r.at+4]), 16, 16)
	r.at += 4
	return rune(n), err == nil
}
