package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"syscall"
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
// name those that it would make, err joins a *Problem for each that it could not.
func (c *Config) CheckDirectories() (notes []string, err error) {
	var errs []error
	for _, d := range c.directories() {
		info, err := os.Stat(d.path)
		switch {
		case err == nil && !info.IsDir():
			errs = append(errs, d.problem(errors.New("something else is in its place")))
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
			if err := makeable(d.path); err != nil {
				errs = append(errs, d.problem(err))
				continue
			}
			notes = append(notes, fmt.Sprintf("%s: serve makes the directory %s, for its user alone.", d.field, d.path))
		}
	}
	return notes, errors.Join(errs...)
}

// makeable says why this user can't make a directory; nil: nothing speaks
// against it.
func makeable(path string) error {
	parent := filepath.Dir(path)
	info, err := os.Stat(parent)
	switch {
	case err != nil && parent != path:
		return makeable(parent)
	case err != nil:
		return err
	case !info.IsDir():
		return syscall.ENOTDIR
	}
	return writable(parent)
}

func (d directory) problem(err error) *Problem {
	who := "badgerelay"
	if u, failed := user.Current(); failed == nil {
		who = u.Username
	}
	if cause, ok := errors.AsType[*fs.PathError](err); ok {
		err = cause.Err
	}
	return &Problem{Field: d.field, Text: fmt.Sprintf("the directory %s is not there and can't be made: %v; as root run 'install -d -m 0700 -o %s %s', or set another path",
		d.path, err, who, d.path)}
}
