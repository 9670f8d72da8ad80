// Package enrolment is what an organization's side keeps about itself and its relay,
// in one directory: its certificates, where the relay is and whom tokens are meant
// for, whether the push notification proxy is on, and the agent's id.
//
// It asks nobody but the relay's metadata server (Learn), and runs nothing.
package enrolment

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"badgerelay/auth/certs"
)

// What may be missing in a directory.
var (
	ErrNoCertificate = errors.New("there is no certificate")
	ErrNotStaged     = errors.New("no next certificate is staged")
	ErrDirectory     = errors.New("make the directory of what the agent keeps")
	ErrNoAuthServer  = errors.New("no auth server is set")
	ErrNoProxy       = errors.New("the push notification proxy was never enabled")
)

// What a directory has.
const (
	certificateDir = "certificates"
	authServerFile = "auth-server.json"
	proxyFile      = "proxy.json"
	agentFile      = "agent.json"
)

// Directory is where everything is kept. It is made by what changes something; to
// read makes nothing. Whoever reads a file meanwhile sees the old one or the new one.
type Directory struct {
	// Path is the directory's.
	Path string
	// Protect keeps others out of a directory that was made, where its mode does
	// not. Nil: the mode does.
	Protect func(path string) error
}

func (d Directory) path(name string) string { return filepath.Join(d.Path, name) }

// HoldsKeys reports whether a file is, or would be, in the directory of certificates and
// keys, also by another name of it.
func (d Directory) HoldsKeys(file string) bool {
	if target, err := filepath.EvalSymlinks(file); err == nil {
		file = target
	}
	keys, err := os.Stat(d.path(certificateDir))
	if err != nil {
		return false // there is none
	}
	for dir := filepath.Dir(file); ; dir = filepath.Dir(dir) {
		if above, err := os.Stat(dir); err == nil && os.SameFile(above, keys) {
			return true
		}
		if dir == filepath.Dir(dir) {
			return false
		}
	}
}

// make makes the directory, for nobody else to look into.
func (d Directory) make() error {
	if there, err := exists(d.Path); there || err != nil {
		return err
	}
	if err := os.MkdirAll(d.Path, 0o700); err != nil {
		return fmt.Errorf("%w: %w", ErrDirectory, err)
	}
	if err := certs.KeepOwner(d.Path); err != nil {
		return err
	}
	if d.Protect == nil {
		return nil
	}
	return d.Protect(d.Path)
}

// load reads a file into v. It reports whether it is there. What holds something else
// than was kept is a certs.DamagedError.
func (d Directory) load(name string, v any) (bool, error) {
	content, err := os.ReadFile(d.path(name))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if err := json.NewDecoder(bytes.NewReader(content)).Decode(v); err != nil {
		return false, &certs.DamagedError{File: d.path(name), Err: err}
	}
	return true, nil
}

func (d Directory) keep(name string, v any) error {
	content, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	if err := d.make(); err != nil {
		return err
	}
	if err := certs.WriteFile(d.path(name), append(content, '\n'), 0o600); err != nil {
		return err
	}
	return certs.KeepOwner(d.path(name))
}

// exists reports whether there is a file. That it can't be known is an error.
func exists(path string) (bool, error) {
	_, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}
