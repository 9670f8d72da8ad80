package dovecot

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
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
	errJSON   = errors.New("the body is not one JSON object in UTF-8")
	errFolder = errors.New("folder: is missing")
)

// parse reads one JSON object. Members that are not wanted are skipped by the
// scanner without being decoded. Errors name a member, never what it holds.
func parse(body []byte) (*notification, error) {
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
		if err := n.member(d, name.(string), seen); err != nil { // a member's name is a string
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

// member reads the value of one member.
func (n *notification) member(d *json.Decoder, name string, seen map[string]bool) error {
	var into any
	limit := uint64(maxExact)
	switch name {
	case "user":
		into = &n.user
	case "folder":
		into = &n.folder
	case "unseen":
		into, limit = &n.unseen, maxUnseen
	case "uidvalidity", "imap-uidvalidity":
		into = &n.validity
	case "highestmodseq":
		into = &n.modseq
	case "missed":
		into = &n.missed
	default:
		into = new(skipped)
	}
	if _, unwanted := into.(*skipped); !unwanted {
		if seen[name] {
			return fmt.Errorf("%s: is there twice", name)
		}
		seen[name] = true
	}
	err := d.Decode(into)
	if _, syntax := errors.AsType[*json.SyntaxError](err); syntax || errors.Is(err, io.ErrUnexpectedEOF) {
		return errJSON
	}
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
