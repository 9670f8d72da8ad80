package dovecot

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"unicode/utf8"
)

// notification is what is wanted of either form.
type notification struct {
	user, folder             string
	unseen, validity, modseq number
	missed                   bool // notifications were left out before this one

	mailbox string // the relay's name, set by the handler
}

// number is a member that may be missing.
type number struct {
	set   bool
	value uint64
}

// Bounds of the numbers: the contract's of a count, and what a double, which
// Lua counts in, holds exactly.
const (
	maxUnseen = 1<<31 - 1
	maxExact  = 1 << 53
)

var (
	errUser   = errors.New("user: has to give a mailbox of 1 to 256 bytes")
	errQuery  = errors.New("the query is not one of name=value in UTF-8, percent-encoded")
	errJSON   = errors.New("the body is not one JSON object in UTF-8")
	errFolder = errors.New("folder: is missing")
)

// parseQuery reads the query of a URL. Parameters that are not wanted are passed
// over. Errors name a parameter, never what it holds.
func parseQuery(query string) (*notification, error) {
	parameters, err := url.ParseQuery(query)
	if err != nil {
		return nil, errQuery
	}
	var n notification
	for name, values := range parameters {
		into, limit := n.member(name)
		if into == nil {
			continue
		}
		if len(values) > 1 {
			return nil, fmt.Errorf("%s: is there twice", name)
		}
		switch into := into.(type) {
		case *string:
			if *into = values[0]; !utf8.ValidString(*into) {
				return nil, errQuery
			}
		case *bool:
			*into, err = strconv.ParseBool(values[0])
		case *number:
			err = into.UnmarshalJSON([]byte(values[0]))
		}
		if err := judge(name, into, limit, err); err != nil {
			return nil, err
		}
	}
	if n.folder == "" {
		return nil, errFolder
	}
	return &n, nil
}

// parseJSON reads one JSON object. Members that are not wanted are skipped by the
// scanner without being decoded. Errors name a member, never what it holds.
func parseJSON(body []byte) (*notification, error) {
	if !utf8.Valid(body) {
		return nil, errJSON
	}
	d := json.NewDecoder(bytes.NewReader(body))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, errJSON
	}
	var n notification
	seen := make(map[string]bool, 6)
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return nil, errJSON
		}
		if err := n.decode(d, name.(string), seen); err != nil { // a member's name is a string
			return nil, err
		}
	}
	if _, err := d.Token(); err != nil {
		return nil, errJSON
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errJSON
	}
	if n.folder == "" {
		return nil, errFolder
	}
	return &n, nil
}

// decode reads the value of one member of a JSON object.
func (n *notification) decode(d *json.Decoder, name string, seen map[string]bool) error {
	into, limit := n.member(name)
	if into == nil {
		into = new(skipped)
	} else if seen[name] {
		return fmt.Errorf("%s: is there twice", name)
	}
	seen[name] = true
	err := d.Decode(into)
	if _, syntax := errors.AsType[*json.SyntaxError](err); syntax || errors.Is(err, io.ErrUnexpectedEOF) {
		return errJSON
	}
	return judge(name, into, limit, err)
}

// member returns where what has this name is put, and the greatest that a number may
// be; nil: it is not wanted.
func (n *notification) member(name string) (into any, limit uint64) {
	switch name {
	case "user":
		return &n.user, 0
	case "folder":
		return &n.folder, 0
	case "unseen":
		return &n.unseen, maxUnseen
	case "uidvalidity", "imap-uidvalidity":
		return &n.validity, maxExact
	case "highestmodseq":
		return &n.modseq, maxExact
	case "missed":
		return &n.missed, 0
	}
	return nil, 0
}

// judge returns the rule that what was read with err breaks.
func judge(name string, into any, limit uint64, err error) error {
	if err != nil {
		return fmt.Errorf("%s: is of the wrong kind", name)
	}
	if v, ok := into.(*number); ok && v.value > limit {
		return fmt.Errorf("%s: is not within 0 to %d", name, limit)
	}
	return nil
}

// UnmarshalJSON takes digits only: no sign, fraction or exponent.
func (v *number) UnmarshalJSON(text []byte) error {
	value, err := strconv.ParseUint(string(text), 10, 64)
	v.set, v.value = true, value
	return err
}

// skipped is a value that nobody looks at.
type skipped struct{}

// UnmarshalJSON leaves the value where it is.
func (*skipped) UnmarshalJSON([]byte) error { return nil }
