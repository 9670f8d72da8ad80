package command

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"time"
)

// Text returns a reader of text in UTF-8, without the byte order mark that Windows puts
// before it; empty says that there is nothing to read. name is what is read.
func Text(r io.Reader, name string) (text *bufio.Reader, empty bool, err error) {
	text = bufio.NewReader(r)
	start, err := text.Peek(3) // what there is of less
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, false, fmt.Errorf("read %s: %w", name, err)
	}
	switch {
	case bytes.HasPrefix(start, []byte("\xff\xfe")), bytes.HasPrefix(start, []byte("\xfe\xff")):
		return nil, false, Invalidf("%s is text in UTF-16: save it as UTF-8", name)
	case bytes.Equal(start, []byte("\xef\xbb\xbf")):
		_, _ = text.Discard(len(start)) // they are there
	}
	return text, len(start) == 0, nil
}

// Counted returns how many there are of what: "1 column", "2 columns".
func Counted[T int | uint64](n T, one, many string) string {
	if n == 1 {
		many = one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// Time is how a time is printed; the zero one is none.
func Time(at time.Time) string {
	if at.IsZero() {
		return "-"
	}
	return at.UTC().Format(time.RFC3339)
}

// ParseTime reads a time that a flag was given: as Time prints it, in another zone, or a
// date, in UTC. Empty is the zero time. The error is a UsageError.
func ParseTime(flag, given string) (at time.Time, err error) {
	if given == "" {
		return at, nil
	}
	for _, layout := range []string{time.RFC3339, time.DateTime, time.DateOnly} {
		if at, err = time.Parse(layout, given); err == nil {
			return at, nil
		}
	}
	return at, Usage("%s %q is not a time such as 2027-01-31T00:00:00Z or 2027-01-31", flag, given)
}
