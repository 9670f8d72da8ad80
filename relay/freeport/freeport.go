// Package freeport finds ports for test servers that can't pick one: they have
// to be told it, or have to come back on it after a restart.
package freeport

import (
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
)

// The kernel gives connections ports from 32768 on of its own accord
// (net.ipv4.ip_local_port_range): one of these could take a port between two
// programs that listen on it.
const first, ports = 20000, 12000

var reserved struct {
	mu   sync.Mutex // guards what follows
	held []net.PacketConn
}

// Address returns a loopback address, host and port, that no program listens
// on. It is the caller's until the process ends: its UDP port stays open, so
// that nobody who asks here gets the address again, in other processes neither.
// It is safe for concurrent use. The error is the network's, after 100 attempts.
func Address() (string, error) {
	var err error
	for range 100 {
		address := fmt.Sprintf("127.0.0.1:%d", first+rand.IntN(ports))
		var port net.PacketConn
		if port, err = net.ListenPacket("udp", address); err != nil {
			continue
		}
		var l net.Listener
		if l, err = net.Listen("tcp", address); err != nil {
			_ = port.Close() // nothing was sent
			continue
		}
		reserved.mu.Lock()
		reserved.held = append(reserved.held, port) // else the garbage collector closes it
		reserved.mu.Unlock()
		return address, l.Close()
	}
	return "", fmt.Errorf("find a free port: %w", err)
}
