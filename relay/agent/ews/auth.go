package ews

import (
	"context"
	"errors"
	"net/url"

	"github.com/Azure/go-ntlmssp"
)

// The schemes of authentication that Exchange offers, as HTTP spells them.
const (
	Basic     = "Basic"
	NTLM      = "NTLM"
	Negotiate = "Negotiate"
)

// Credentials prove who the agent is. They are safe for concurrent use.
type Credentials interface {
	// Scheme is Basic, NTLM or Negotiate.
	Scheme() string
	// Begin starts an exchange with the server of that name, for one connection.
	Begin(ctx context.Context, host string) (Exchange, error)
}

// Exchange is one authentication.
type Exchange interface {
	// Next returns the next token for the server, which has answered challenge;
	// nil: nothing yet.
	Next(challenge []byte) (token []byte, err error)
}

// errNoMore: the server goes on where the exchange has ended.
var errNoMore = errors.New("the server asks for more than the exchange has")

// BasicLogin logs in with name and password, which each request carries.
func BasicLogin(user, password string) Credentials { return basicLogin{user + ":" + password} }

type basicLogin struct{ token string }

// Scheme implements Credentials.
func (basicLogin) Scheme() string { return Basic }

// Begin implements Credentials.
func (b basicLogin) Begin(context.Context, string) (Exchange, error) { return b, nil }

// Next implements Exchange.
func (b basicLogin) Next(challenge []byte) ([]byte, error) {
	if challenge != nil {
		return nil, errNoMore
	}
	return []byte(b.token), nil
}

// NTLMLogin logs in with a name, DOMAIN\user or user@domain, and a password, by
// NTLMv2. The library binds it to no TLS channel: a server whose Extended
// Protection is "Require" refuses it.
func NTLMLogin(user, password string) Credentials { return ntlmLogin{user, password} }

type ntlmLogin struct{ user, password string }

// Scheme implements Credentials.
func (ntlmLogin) Scheme() string { return NTLM }

// Begin implements Credentials.
func (n ntlmLogin) Begin(context.Context, string) (Exchange, error) { return n, nil }

// Next implements Exchange.
func (n ntlmLogin) Next(challenge []byte) ([]byte, error) {
	if challenge == nil {
		return ntlmssp.NewNegotiateMessage("", "")
	}
	return ntlmssp.NewAuthenticateMessage(challenge, n.user, n.password, nil)
}

// host returns the name of a URL's server, without its port.
func host(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	return u.Hostname()
}
