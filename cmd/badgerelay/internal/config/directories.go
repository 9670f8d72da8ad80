package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"syscall"

	"badgerelay/cmd/internal/configfile"
)

// directory is one that serve writes to.
type directory struct{ field, path string }

// directories are where the registry and the admin socket go.
func (c *Config) directories() (all []directory) {
	if path := c.RegistryPath(); path != "" {
		all = append(all, directory{"registry.path", filepath.Dir(path)})
	}
	if socket := c.AdminSocket(); socket != "" {
		all = append(all, directory{"admin.socket", filepath.Dir(socket)})
	}
	return all
}

// MakeDirectories makes the directories of the registry and the admin socket
// where they are missing, for this user alone (0700). err joins a *Problem for
// each that can't be, which says what to do.
func (c *Config) MakeDirectories() error {
	var errs []error
	for _, d := range c.directories() {
		if err := os.MkdirAll(d.path, 0o700); err != nil {
			errs = append(errs, d.problem(err))
		}
	}
	return errors.Join(errs...)
}

// CheckDirectories looks what MakeDirectories would do, without doing it: notes
// name those that it would make, those that only root can make, as the systemd unit
// does before it starts serve, and those that this user can't write to; err joins a
// *Problem for each that could not be made at all.
func (c *Config) CheckDirectories() (notes []string, err error) {
	var errs []error
	for _, d := range c.directories() {
		info, err := os.Stat(d.path)
		switch {
		case err == nil && !info.IsDir():
			errs = append(errs, d.problem(errors.New("something else is in its place")))
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
			note, err := d.missing(configfile.Makeable(d.path))
			if err != nil {
				errs = append(errs, err)
				continue
			}
			notes = append(notes, note)
		case err == nil:
			if note := d.there(configfile.Makeable(filepath.Join(d.path, "any"))); note != "" {
				notes = append(notes, note)
			}
		}
	}
	return notes, errors.Join(errs...)
}

// there says what speaks against a directory that is there, in which nothing can be
// made, of which why says why; empty: nothing does. It may pass, so it is no problem.
func (d directory) there(why error) (note string) {
	switch {
	case why == nil:
		return ""
	case errors.Is(why, fs.ErrPermission):
		return fmt.Sprintf("%s: this user, %s, may not write to the directory %s, as the user that runs serve must.", d.field, userName(), d.path)
	}
	return fmt.Sprintf("%s: nothing can be made in the directory %s now: %v.", d.field, d.path, why)
}

// missing says what becomes of a directory that is not there, of which Makeable
// says why.
func (d directory) missing(why error) (note string, problem error) {
	switch {
	case why == nil:
		return fmt.Sprintf("%s: serve makes the directory %s, for its user alone.", d.field, d.path), nil
	case errors.Is(why, fs.ErrPermission):
		return fmt.Sprintf("%s: the directory %s is not there yet, and this user can't make it: the systemd unit does, or root with 'install -d -m 0700 -o %s %s'.",
			d.field, d.path, userName(), d.path), nil
	}
	return "", d.problem(why)
}

func (d directory) problem(err error) *Problem {
	if cause, ok := errors.AsType[*fs.PathError](err); ok {
		err = cause.Err
	}
	return &Problem{Field: d.field, Text: fmt.Sprintf("the directory %s is not there and can't be made: %v; as root run 'install -d -m 0700 -o %s %s', or set another path",
		d.path, err, userName(), d.path)}
}

// userName is who is to own the directories: whose process this is.
func userName() string {
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return "badgerelay"
}
