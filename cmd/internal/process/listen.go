package process

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"syscall"
)

// Listen listens on a TCP address, host:port. Its commonest errors say what is wrong.
func Listen(address string) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("another process listens there already: %w", err)
	case errors.Is(err, syscall.EACCES):
		return nil, fmt.Errorf("ports below 1024 need the capability CAP_NET_BIND_SERVICE: %w", err)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return nil, fmt.Errorf("this machine does not have that address: %w", err)
	}
	return l, err
}

// Listeners are those of a daemon, all of which are opened before anything else: a second
// daemon on the same machine finds out at once, and touches nothing.
type Listeners struct {
	open []net.Listener
	errs []error
}

// Open has listen open the address that a field of the configuration holds. It
// returns nil for no address, and on an error, which Err then tells.
func (o *Listeners) Open(field, address string, listen func(string) (net.Listener, error)) net.Listener {
	if address == "" {
		return nil
	}
	l, err := listen(address)
	if err != nil {
		o.errs = append(o.errs, fmt.Errorf("%s %s: %w", field, address, err))
		return nil
	}
	o.open = append(o.open, l)
	return l
}

// Err returns what could not be opened, joined; then it closes the others.
func (o *Listeners) Err() error {
	if len(o.errs) > 0 {
		o.Close()
	}
	return errors.Join(o.errs...)
}

// Close closes what nobody serves; a served listener is closed already.
func (o *Listeners) Close() {
	for _, l := range o.open {
		_ = l.Close() // closed twice is no harm
	}
}

// Address returns where a listener is reached; "" of nil.
func Address(l net.Listener) string {
	if l == nil {
		return ""
	}
	return l.Addr().String()
}

// TellAccept returns a listener that says so where it can't accept a connection
// because too many files are open. Whoever serves it tries again.
func TellAccept(l net.Listener, logger *slog.Logger) net.Listener {
	return tellingListener{l, logger}
}

type tellingListener struct {
	net.Listener
	logger *slog.Logger
}

func (l tellingListener) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	if errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) {
		l.logger.Error("no connection can be accepted: too many files are open", "address", l.Addr().String(), "error", err)
	}
	return nc, err
}
