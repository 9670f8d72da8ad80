package configfile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"syscall"
)

// maxFile bounds the file; a configuration with a thousand apps has 300 KiB.
const maxFile = 4 << 20

// Read reads a file and returns its content and name. Where path is empty,
// fallback is read if it exists, and otherwise there is neither.
func Read(path, fallback string) (data []byte, file string, err error) {
	path = Named(path, fallback)
	if path == "" {
		return nil, "", nil
	}
	if data, err = readFile(path); err != nil {
		return nil, path, &Problem{Text: fmt.Sprintf("read configuration: %v", err)}
	}
	return data, path, nil
}

// readFile reads a file, or a pipe that somebody writes to.
func readFile(path string) (data []byte, err error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a pipe that nobody writes to is empty, and not waited for
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("there is no file %s; the command 'config example' prints one to begin with", path)
	}
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if kind := info.Mode().Type(); kind != 0 && kind != fs.ModeNamedPipe {
		return nil, fmt.Errorf("%s is no file", path)
	}
	data, err = io.ReadAll(io.LimitReader(f, maxFile+1))
	switch {
	case err != nil:
		return nil, err
	case len(data) > maxFile:
		return nil, fmt.Errorf("%s is larger than %d bytes", path, maxFile)
	case len(bytes.TrimSpace(data)) == 0:
		return nil, fmt.Errorf("%s is empty", path)
	case bytes.HasPrefix(data, []byte("-----BEGIN ")):
		return nil, fmt.Errorf("%s holds a key or a certificate, and no configuration", path)
	}
	return data, nil
}

// Load reads the file as Read does, and has check enter what is wrong with what is in
// it. The returned configuration is the valid one, with warnings beside it; err joins
// every *Problem.
func Load[T any](path, fallback string, check func(*T, *Checker)) (c *T, warnings []*Problem, err error) {
	data, path, err := Read(path, fallback)
	if err != nil {
		return nil, nil, err
	}
	c = new(T)
	lines, err := Decode(path, data, c)
	if err != nil && len(lines) == 0 {
		return c, nil, err // nothing could be read: the rules would judge the defaults
	}
	k := &Checker{File: path, Lines: lines, Found: Problems(err)}
	check(c, k)
	warnings, err = Sort(k.Found)
	return c, warnings, err
}

// Parse decodes a file without looking at anything that it names. err joins every
// *Problem; the configuration holds what could be read.
func Parse[T any](file string, data []byte) (*T, error) {
	c := new(T)
	_, err := Decode(file, data, c)
	return c, err
}

// Named returns the file that Read reads: path, or fallback where path is empty and it
// exists. Empty: there is none.
func Named(path, fallback string) string {
	if path != "" {
		return path
	}
	if _, err := os.Stat(fallback); errors.Is(err, fs.ErrNotExist) {
		return ""
	}
	return fallback
}

// Problem is one thing that is wrong with the configuration. Its JSON is what config
// check prints.
type Problem struct {
	// File is the file's name as it was given; empty: there is none.
	File string `json:"-"`
	// Line is where, from 1; 0: no line is to blame, something is missing.
	Line int `json:"line"`
	// Field is the path of the field, such as "apps[1].token.key_file"; empty:
	// the whole file.
	Field string `json:"field"`
	// Text says what is wrong and what would be right.
	Text string `json:"text"`
	// Warning marks what is worth a look but can be lived with.
	Warning bool `json:"-"`
	// Clock marks what is wrong only by what the system's clock says: a
	// certificate that is not valid yet, or any more.
	Clock bool `json:"-"`
}

// Error returns "file:line: field: text".
func (p *Problem) Error() string {
	var b strings.Builder
	if p.File != "" {
		b.WriteString(p.File)
		if p.Line > 0 {
			fmt.Fprintf(&b, ":%d", p.Line)
		}
		b.WriteString(": ")
	}
	if p.Field != "" {
		b.WriteString(p.Field + ": ")
	}
	b.WriteString(p.Text)
	return b.String()
}

// OfClock reports whether err holds nothing but problems that the clock alone
// makes: another start may succeed with the same file.
func OfClock(err error) bool {
	for _, p := range Problems(err) {
		if !p.Warning && !p.Clock {
			return false
		}
	}
	return err != nil
}

// Problems returns the problems joined in err, in order; one that is none of
// ours comes as a Problem with its text.
func Problems(err error) []*Problem {
	if err == nil {
		return nil
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var all []*Problem
		for _, e := range joined.Unwrap() {
			all = append(all, Problems(e)...)
		}
		return all
	}
	if p, ok := errors.AsType[*Problem](err); ok {
		return []*Problem{p}
	}
	return []*Problem{{Text: err.Error()}}
}

// Sort puts problems into the order of the file, and parts the warnings from
// the errors, which it joins.
func Sort(problems []*Problem) (warnings []*Problem, err error) {
	slices.SortStableFunc(problems, func(a, b *Problem) int { return a.Line - b.Line })
	var errs []error
	for _, p := range problems {
		if p.Warning {
			warnings = append(warnings, p)
			continue
		}
		errs = append(errs, p)
	}
	return warnings, errors.Join(errs...)
}
