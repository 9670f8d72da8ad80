package apnstest

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"unicode/utf8"
)

// members are those of a JSON object. Names are compared byte for byte, as
// APNs and devices do; a struct of encoding/json would take "BADGE" for
// "badge".
type members map[string]json.RawMessage

var errNotObject = errors.New("not a JSON object")

// parseObject reads one JSON object in UTF-8 and nothing after it. twice are the
// names that come more than once; the last value of each is kept.
func parseObject(b []byte) (m members, twice []string, err error) {
	if !utf8.Valid(b) { // encoding/json would replace what is not
		return nil, nil, errors.New("not UTF-8")
	}
	d := json.NewDecoder(bytes.NewReader(b))
	if first, err := d.Token(); err != nil || first != json.Delim('{') {
		return nil, nil, errNotObject
	}
	m = members{}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return nil, nil, err
		}
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return nil, nil, err
		}
		key, ok := name.(string)
		if !ok {
			return nil, nil, errNotObject
		}
		if _, again := m[key]; again {
			twice = append(twice, key)
		}
		m[key] = value
	}
	if _, err := d.Token(); err != nil { // the closing brace
		return nil, nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, nil, errNotObject
	}
	return m, twice, nil
}

// has reports whether the member is there and not null.
func (m members) has(name string) bool { return len(m[name]) > 0 && string(m[name]) != "null" }

// text returns a member that is a string; empty: it is not.
func (m members) text(name string) string {
	s, _ := parseString(m[name]) // what is no string is as good as missing
	return s
}

func parseString(raw json.RawMessage) (string, error) {
	if len(raw) == 0 || raw[0] != '"' {
		return "", errors.New("not a string")
	}
	var s string
	err := json.Unmarshal(raw, &s)
	return s, err
}

// isNumber reports whether s is a JSON number (RFC 8259, section 6).
func isNumber(s string) bool {
	return s != "" && (s[0] == '-' || s[0] >= '0' && s[0] <= '9') && json.Valid([]byte(s))
}
