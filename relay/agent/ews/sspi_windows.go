package ews

import (
	"context"
	"fmt"

	"github.com/alexbrainman/sspi"
	"github.com/alexbrainman/sspi/negotiate"
)

// WindowsLogin logs in as the account that the process runs as, by what Windows
// negotiates. service is the principal of Exchange; empty: HTTP/ and the server's
// name. The library binds it to no TLS channel. The result is an io.Closer.
func WindowsLogin(service string) (Credentials, error) {
	credentials, err := negotiate.AcquireCurrentUserCredentials()
	if err != nil {
		return nil, fmt.Errorf("credentials of this process: %w", err)
	}
	return &windowsLogin{credentials, service}, nil
}

type windowsLogin struct {
	credentials *sspi.Credentials
	service     string
}

// Scheme implements Credentials.
func (*windowsLogin) Scheme() string { return Negotiate }

// Close releases the credentials.
func (w *windowsLogin) Close() error { return w.credentials.Release() }

// Begin implements Credentials.
func (w *windowsLogin) Begin(_ context.Context, host string) (Exchange, error) {
	return &windowsExchange{credentials: w.credentials, service: or(w.service, "HTTP/"+host)}, nil
}

type windowsExchange struct {
	credentials *sspi.Credentials
	service     string
	context     *negotiate.ClientContext
	complete    bool
}

// Next implements Exchange.
func (w *windowsExchange) Next(challenge []byte) (token []byte, err error) {
	switch {
	case w.context == nil:
		w.context, token, err = negotiate.NewClientContext(w.credentials, w.service)
	case w.complete:
		return nil, errNoMore
	default:
		w.complete, token, err = w.context.Update(challenge)
	}
	return token, err
}

// Close releases what Windows keeps of the exchange.
func (w *windowsExchange) Close() error {
	if w.context == nil {
		return nil
	}
	return w.context.Release()
}
