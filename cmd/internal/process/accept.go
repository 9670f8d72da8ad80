package process

import (
	"errors"
	"log/slog"
	"net"
	"syscall"
)

// TellAccept returns a listener that says so where it can't accept a connection
// because too many files are open. Whoever serves it tries again.
func TellAccept(l net.Listener, logger *slog.Logger) net.Listener {
	if l == nil {
		return nil
	}
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
