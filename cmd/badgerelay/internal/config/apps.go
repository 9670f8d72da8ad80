package config

import (
	"crypto/tls"
	"fmt"
	"net/url"
	"os"
	"regexp"
	"strings"
	"time"

	"badgerelay/apns"
	"badgerelay/cmd/internal/configfile"
)

var (
	appName = regexp.MustCompile(`^[A-Za-z0-9._-]{1,128}$`)
	// Apple's key and team ids have ten characters (Apple, "Establishing a
	// token-based connection to APNs", read 2026-11).
	appleID = regexp.MustCompile(`^[A-Z0-9]{10}$`)
)

func (c *Config) checkApps(k *configfile.Checker) {
	if len(c.Apps) == 0 {
		k.Warn("apps", "no app is configured: the relay starts, and refuses every subscription")
	}
	names := map[string]int{}
	for i := range c.Apps {
		field := fmt.Sprintf("apps[%d]", i)
		a := &c.Apps[i]
		if first, twice := names[a.DisplayName()]; twice && a.DisplayName() != "" {
			k.Bad(field+".name", "%q is also apps[%d]; give each app a name of its own", a.DisplayName(), first)
		}
		names[a.DisplayName()] = i
		a.check(k, field)
	}
}

func (a *App) check(k *configfile.Checker, field string) {
	switch {
	case a.Topic == "":
		k.Bad(field+".topic", "is required: the app's bundle id")
	case !appName.MatchString(a.Topic):
		k.Bad(field+".topic", "%q is not a bundle id: letters, digits, dots and hyphens", a.Topic)
	}
	if a.Name != "" && !appName.MatchString(a.Name) {
		k.Bad(field+".name", "%q is not 1 to 128 letters, digits, dots, hyphens and underscores", a.Name)
	}
	k.OneOf(field+".environment", a.Environment, "production", "sandbox")
	k.OneOf(field+".engine", a.Engine, "native", "apns2")
	k.Number(field+".max_connections", a.MaxConnections, 1, 1000)
	k.Rate(field+".connects_per_second", a.ConnectsPerSecond, 0.01, 100)
	k.Duration(field+".answer_timeout", a.AnswerTimeout, 100*time.Millisecond, 5*time.Minute)
	k.Duration(field+".expiration", a.Expiration, time.Hour, 30*24*time.Hour)
	a.checkCredential(k, field)
	a.checkServer(k, field)
}

func (a *App) checkCredential(k *configfile.Checker, field string) {
	token, certificate := a.Token != (AppToken{}), a.Certificate != (AppCertificate{})
	switch {
	case token && certificate:
		k.Bad(field, "token and certificate exclude each other")
	case token:
		a.checkToken(k, field+".token")
	case certificate:
		a.Certificate.check(k, field+".certificate")
	default:
		k.Bad(field, "needs a credential: token (key_file, key_id, team_id) or certificate (file)")
	}
}

func (a *App) checkToken(k *configfile.Checker, field string) {
	providerKey(k, field+".key_file", a.Token.KeyFile)
	if !appleID.MatchString(a.Token.KeyID) {
		k.Bad(field+".key_id", "%q is not ten capital letters and digits; Apple shows it beside the key", a.Token.KeyID)
	}
	if !appleID.MatchString(a.Token.TeamID) {
		k.Bad(field+".team_id", "%q is not ten capital letters and digits; Apple shows it under membership", a.Token.TeamID)
	}
}

func (a AppCertificate) check(k *configfile.Checker, field string) {
	before := len(k.Found)
	if a.KeyFile == "" {
		k.Secret(field+".file", a.File)
	} else {
		k.Content(field+".file", a.File)
		k.Secret(field+".key_file", a.KeyFile)
	}
	if a.PasswordFile != "" {
		k.Secret(field+".password_file", a.PasswordFile)
	}
	if len(k.Found) > before {
		return
	}
	certificate, err := a.Load()
	if err != nil {
		k.Bad(field+".file", "%v", err)
		return
	}
	k.Validity(field+".file", certificate.Leaf)
}

// Load reads the certificate with its key.
func (a AppCertificate) Load() (*tls.Certificate, error) {
	var password string
	if a.PasswordFile != "" {
		data, err := os.ReadFile(a.PasswordFile)
		if err != nil {
			return nil, fmt.Errorf("read password: %w", err)
		}
		password, _, _ = strings.Cut(string(data), "\n")
	}
	return apns.LoadKeyPair(a.File, a.KeyFile, strings.TrimSuffix(password, "\r"))
}

func (a *App) checkServer(k *configfile.Checker, field string) {
	if a.Address != "" {
		k.Peer(field+".address", a.Address)
	}
	k.Authorities(field+".ca_file", a.CAFile)
	if a.CAFile != "" && a.Address == "" {
		k.Warn(field+".ca_file", "Apple's own servers will be verified against this file alone")
	}
	if a.Proxy == "" {
		return
	}
	u, err := url.Parse(a.Proxy)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		k.Bad(field+".proxy", "must be http://host:port or https://host:port")
		return
	}
	k.URLPort(field+".proxy", a.Proxy)
	if strings.Trim(u.Path, "/") != "" {
		k.Bad(field+".proxy", "a proxy's address has no path")
	}
}

// providerKey checks a .p8 file.
func providerKey(k *configfile.Checker, field, path string) {
	data := k.Secret(field, path)
	if data == nil {
		return
	}
	if _, err := apns.ParseSigningKey(data); err != nil {
		k.Bad(field, "%s %v", path, err)
	}
}
