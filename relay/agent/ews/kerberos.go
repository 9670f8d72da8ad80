package ews

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jcmturner/gokrb5/v8/client"
	"github.com/jcmturner/gokrb5/v8/config"
	"github.com/jcmturner/gokrb5/v8/keytab"
	"github.com/jcmturner/gokrb5/v8/spnego"
)

// Keytab says how to log in with Kerberos.
type Keytab struct {
	// Principal is the account, such as badgeagent@FABRIKAM.COM.
	Principal string
	// File is the keytab's path.
	File string
	// Config is the path of Kerberos's configuration. Empty: /etc/krb5.conf.
	Config string
	// Service is the principal of Exchange. Empty: HTTP/ and the server's name.
	Service string
}

// KeytabLogin logs in with the key of a keytab, by Kerberos inside Negotiate. The
// library binds it to no TLS channel. The result is an io.Closer.
func KeytabLogin(k Keytab) (Credentials, error) {
	name, realm, ok := strings.Cut(k.Principal, "@")
	if !ok || name == "" || realm == "" {
		return nil, fmt.Errorf("%q is no principal such as badgeagent@FABRIKAM.COM", k.Principal)
	}
	keys, err := keytab.Load(k.File)
	if err != nil {
		return nil, fmt.Errorf("read keytab %s: %w", k.File, err)
	}
	c, err := config.Load(or(k.Config, "/etc/krb5.conf"))
	if _, unsupported := errors.AsType[config.UnsupportedDirective](err); err != nil && !unsupported { // what it does not know it leaves out
		return nil, fmt.Errorf("read Kerberos configuration: %w", err)
	}
	// Active Directory does not know FAST for accounts (gokrb5, "Client").
	return &keytabLogin{client.NewWithKeytab(name, realm, keys, c, client.DisablePAFXFAST(true)), k.Service}, nil
}

type keytabLogin struct {
	client  *client.Client
	service string
}

// Scheme implements Credentials.
func (*keytabLogin) Scheme() string { return Negotiate }

// Close ends the renewal of tickets.
func (k *keytabLogin) Close() error {
	k.client.Destroy()
	return nil
}

// Begin implements Credentials.
func (k *keytabLogin) Begin(_ context.Context, host string) (Exchange, error) {
	return keytabExchange{k.client, or(k.service, "HTTP/"+host)}, nil
}

type keytabExchange struct {
	client  *client.Client
	service string
}

// Next implements Exchange.
func (k keytabExchange) Next(challenge []byte) ([]byte, error) {
	if challenge != nil {
		return nil, errNoMore
	}
	if err := k.client.AffirmLogin(); err != nil {
		return nil, fmt.Errorf("log in at the KDC: %w", err)
	}
	token, err := spnego.SPNEGOClient(k.client, k.service).InitSecContext()
	if err != nil {
		return nil, fmt.Errorf("ticket for %s: %w", k.service, err)
	}
	return token.Marshal()
}
