//go:build !windows

package ews

import "errors"

// WindowsLogin is for Windows only.
func WindowsLogin(string) (Credentials, error) {
	return nil, errors.New("only Windows has credentials of its own")
}
