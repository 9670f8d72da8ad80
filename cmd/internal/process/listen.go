package process

import (
	"errors"
	"fmt"
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
