package config

import (
	"errors"
	"io/fs"
	"strings"
	"syscall"
	"testing"
)

// TestMissingDirectories looks that a configuration is right whose directories
// the unit makes, before it has made them.
func TestMissingDirectories(t *testing.T) {
	d := directory{"registry.path", "/var/lib/badgerelay"}
	for _, c := range []struct {
		why     error
		note    string
		problem bool
	}{
		{nil, "serve makes the directory /var/lib/badgerelay", false},
		{&fs.PathError{Op: "access", Path: "/var/lib", Err: syscall.EACCES}, "the systemd unit does", false},
		{syscall.ENOTDIR, "", true},
		{&fs.PathError{Op: "access", Path: "/var/lib", Err: syscall.EROFS}, "", true},
	} {
		note, err := d.missing(c.why)
		_, problem := errors.AsType[*Problem](err)
		if problem != c.problem || !strings.Contains(note, c.note) || (note == "") != c.problem {
			t.Errorf("%v: %q, %v; want %q, a problem: %t", c.why, note, err, c.note, c.problem)
		}
	}
}

// TestUnwritableDirectories has one of another user, and one on a disk that takes
// nothing.
func TestUnwritableDirectories(t *testing.T) {
	d := directory{"registry.path", "/var/lib/badgerelay"}
	for _, c := range []struct {
		why  error
		note string
	}{
		{nil, ""},
		{syscall.EACCES, "may not write to the directory /var/lib/badgerelay, as the user that runs serve must."},
		{syscall.EROFS, "nothing can be made in the directory /var/lib/badgerelay now: read-only file system."},
	} {
		if note := d.there(c.why); !strings.HasSuffix(note, c.note) || (note == "") != (c.note == "") {
			t.Errorf("%v: %q, want %q", c.why, note, c.note)
		}
	}
}
