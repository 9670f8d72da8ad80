package main

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

// Files in the directory, beside the certificate store.
const (
	authServerFile = "auth-server.json"
	proxyFile      = "proxy.json"
	agentFile      = "agent.json"
)

// missing says in which directory something is not, and what makes it.
func (a *app) missing(what error) error {
	command := map[error]string{
		errNoCertificate: "cert ensure --organization ...",
		errNotStaged:     "cert stage",
		errNoAuthServer:  "auth-server set --metadata-url https://...",
		errNoProxy:       "proxy enable --organization ...",
	}[what]
	return fmt.Errorf("%w in %s; run 'badgeagent %s', or name another directory with --dir", what, a.dir, command)
}

// load reads a file of the directory into v. It reports whether it is there.
func (a *app) load(name string, v any) (bool, error) {
	content, err := os.ReadFile(filepath.Join(a.dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	decoder := json.NewDecoder(bytes.NewReader(content))
	if err := decoder.Decode(v); err != nil {
		return false, fmt.Errorf("read %s: %w", filepath.Join(a.dir, name), err)
	}
	return true, nil
}

// store writes v to a file of the directory; whoever reads it meanwhile sees
// the old file or the new one.
func (a *app) store(name string, v any) error {
	content, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	if err := a.makeDir(); err != nil {
		return err
	}
	return writeFile(filepath.Join(a.dir, name), append(content, '\n'), 0o600)
}

// makeDir makes the directory, for nobody else to look into.
func (a *app) makeDir() error {
	if exists(a.dir) {
		return nil
	}
	if err := os.MkdirAll(a.dir, 0o700); err != nil {
		return fmt.Errorf("make the directory of what the agent keeps (--dir, $BADGEAGENT_DIR): %w", err)
	}
	return protect(a.dir)
}

// writeFile replaces a file at once, and makes its directory if it is missing.
func writeFile(path string, content []byte, mode fs.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return certs.WriteFile(path, content, mode)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
