package strict

import (
	"errors"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// Bounds of a JSON text. Depth is what a metadata document needs and a token
// may have; the number of members keeps the search for duplicates cheap.
const (
	maxDepth    = 4
	maxChildren = 64
)

var ErrJSON = errors.New("not a strict JSON text")

// Kind is what a value is.
type Kind uint8

const (
	Null Kind = iota
	Bool
	Number
	String
	Array
	Object
)

// Value is one value and all below it.
type Value struct {
	Kind Kind
	// text is a string's content, or the literal of a number or bool.
	Text    string
	Members []Member // of an object, each name once
	Items   []Value  // of an array
}

type Member struct {
	Name  string
	Value Value
}

// Member returns the object's member of exactly this name.
func (v *Value) Member(name string) (*Value, bool) {
	for i := range v.Members {
		if v.Members[i].Name == name {
			return &v.Members[i].Value, true
		}
	}
	return nil, false
}

// AnyMember reports whether an object in v, v included, has a member that
// match accepts.
func (v *Value) AnyMember(match func(name string) bool) bool {
	for i := range v.Members {
		if match(v.Members[i].Name) || v.Members[i].Value.AnyMember(match) {
			return true
		}
	}
	for i := range v.Items {
		if v.Items[i].AnyMember(match) {
			return true
		}
	}
	return false
}

// ParseObject reads data as one object with nothing behind it but white
// space. Everything that is not strictly right is ErrJSON.
func ParseObject(data []byte) (*Value, error) {
	r := reader{data: data}
	r.space()
	v, ok := r.value(1)
	r.space()
	if !ok || v.Kind != Object || r.at != len(data) {
		return nil, ErrJSON
	}
	return &v, nil
}

type reader struct {
	data []byte
	at   int
}

func (r *reader) peek() byte {
	if r.at < len(r.data) {
		return r.data[r.at]
	}
	return 0
}

func (r *reader) space() {
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
func (r *reader) take(c byte) bool {
	if r.at < len(r.data) && r.data[r.at] == c {
		r.at++
		return true
	}
	return false
}

func (r *reader) literal(s string) bool {
	if len(r.data)-r.at < len(s) || string(r.data[r.at:r.at+len(s)]) != s {
		return false
	}
	r.at += len(s)
	return true
}

func (r *reader) value(depth int) (Value, bool) {
	switch c := r.peek(); {
	case c == '{':
		return r.object(depth)
	case c == '[':
		return r.array(depth)
	case c == '"':
		s, ok := r.string()
		return Value{Kind: String, Text: s}, ok
	case c == 't':
		return Value{Kind: Bool, Text: "true"}, r.literal("true")
	case c == 'f':
		return Value{Kind: Bool, Text: "false"}, r.literal("false")
	case c == 'n':
		return Value{Kind: Null}, r.literal("null")
	}
	s, ok := r.number()
	return Value{Kind: Number, Text: s}, ok
}

func (r *reader) object(depth int) (Value, bool) {
	v := Value{Kind: Object}
	if depth > maxDepth || !r.take('{') {
		return v, false
	}
	r.space()
	if r.take('}') {
		return v, true
	}
	for {
		name, ok := r.string()
		if !ok || len(v.Members) == maxChildren {
			return v, false
		}
		if _, again := v.Member(name); again {
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
		v.Members = append(v.Members, Member{name, child})
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

func (r *reader) array(depth int) (Value, bool) {
	v := Value{Kind: Array}
	if depth > maxDepth || !r.take('[') {
		return v, false
	}
	r.space()
	if r.take(']') {
		return v, true
	}
	for {
		if len(v.Items) == maxChildren {
			return v, false
		}
		child, ok := r.value(depth + 1)
		if !ok {
			return v, false
		}
		v.Items = append(v.Items, child)
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

func (r *reader) digits() bool {
	start := r.at
	for c := r.peek(); c >= '0' && c <= '9'; c = r.peek() {
		r.at++
	}
	return r.at > start
}

func (r *reader) number() (string, bool) {
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

func (r *reader) string() (string, bool) {
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
func (r *reader) escape() (rune, bool) {
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

func (r *reader) hex4() (rune, bool) {
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
