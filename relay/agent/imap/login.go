package imap

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
)

// MaxCredentials bounds a credentials file, in bytes; a hundred thousand users
// have less.
const MaxCredentials = 32 << 20

// errName marks user names that can't be part of a login.
var errName = errors.New("the user's name can't be logged in with")

// Master returns logins of a master user, who reads all mailboxes. With {user} in
// its name that is a template of the login name. With a separator the login name
// is user, separator, master; else the user is named as the authorization
// identity.
func Master(name, password, separator string) func(string) (Login, error) {
	return func(user string) (Login, error) {
		switch {
		case user == "" || strings.ContainsRune(user, 0):
			return Login{}, errName
		case strings.Contains(name, "{user}"):
			return Login{User: strings.ReplaceAll(name, "{user}", user), Password: password}, nil
		case separator == "":
			return Login{User: name, Password: password, Identity: user}, nil
		case strings.Contains(user, separator):
			return Login{}, fmt.Errorf("%w: it contains %q, which parts it from the master user's", errName, separator)
		}
		return Login{User: user + separator + name, Password: password}, nil
	}
}

// PasswordFile reads a password: the file's first line.
func PasswordFile(path string) (string, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("read password: %w", err)
	}
	line, _, _ := bytes.Cut(data, []byte("\n"))
	line = bytes.TrimSuffix(line, []byte("\r"))
	if len(line) == 0 {
		return "", fmt.Errorf("read password: the first line of %s is empty", path)
	}
	return string(line), nil
}

// CredentialsFile reads each user's own login: lines of user, login name and
// password, with tabs between them. Empty lines, and those that begin with #,
// are left out. A user is found in any case, unless users that differ in case are
// different ones. The error names every line that is wrong, and no password.
func CredentialsFile(path string, caseSensitive bool) (func(string) (Login, error), error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read credentials: %w", err)
	}
	if len(data) > MaxCredentials {
		return nil, fmt.Errorf("read credentials: %s is larger than %d bytes", path, MaxCredentials)
	}
	logins, err := parseCredentials(data, caseSensitive)
	if err != nil {
		return nil, fmt.Errorf("read credentials %s: %w", path, err)
	}
	return func(user string) (Login, error) {
		login, ok := logins[userKey(user, caseSensitive)]
		if !ok {
			return Login{}, fmt.Errorf("no credentials for the user in %s", path)
		}
		return login, nil
	}, nil
}

// CheckCredentials returns what CredentialsFile finds wrong with a file's content, each
// by itself. A hundred are enough to see what kind of file it is.
func CheckCredentials(data []byte, caseSensitive bool) []error {
	_, errs := readCredentials(data, caseSensitive)
	return errs[:min(len(errs), 100)]
}

func parseCredentials(data []byte, caseSensitive bool) (map[string]Login, error) {
	logins, errs := readCredentials(data, caseSensitive)
	return logins, errors.Join(errs...)
}

// userKey is by which a user's login is found.
func userKey(user string, caseSensitive bool) string {
	if caseSensitive {
		return user
	}
	return strings.ToLower(user)
}

func readCredentials(data []byte, caseSensitive bool) (logins map[string]Login, errs []error) {
	logins = make(map[string]Login)
	number := 0
	for line := range strings.Lines(string(data)) {
		number++
		line = strings.TrimRight(line, "\r\n")
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		fields := strings.Split(line, "\t")
		user := userKey(fields[0], caseSensitive)
		switch {
		case len(fields) != 3 || fields[0] == "" || fields[1] == "" || fields[2] == "":
			errs = append(errs, fmt.Errorf("line %d: want user, login name and password, with tabs between them", number))
		case strings.ContainsRune(line, 0):
			errs = append(errs, fmt.Errorf("line %d: holds a zero byte", number))
		case logins[user] != Login{}:
			errs = append(errs, fmt.Errorf("line %d: user given twice", number))
		default:
			logins[user] = Login{User: fields[1], Password: fields[2]}
		}
	}
	return logins, errs
}
