package rig

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"

	"badgerelay/cmd/internal/rig/wire"
	"badgerelay/relay/freeport"
	"badgerelay/relay/registry/postgrestest"
)

// Wires are a relay's connections to everything else.
type Wires struct {
	Agents   *wire.Wire
	Apple    [2]*wire.Wire // over IPv4 and over IPv6, of one name; nil: the machine has no IPv6
	Database []*wire.Wire  // to each server of the database

	apple string // name and port of Apple's wires
	// sandbox: the relay's process was started for the sandbox, and its connections to
	// Apple go there, whatever is configured by now.
	sandbox atomic.Bool
	source  atomic.Uint32 // number of the relay's processes so far: from which address they come to Apple
	relay   int
}

// Wires returns the wires of the i-th relay. The rig must have been made with
// them.
func (r *Rig) Wires(i int) *Wires { return r.places[i].wires }

// NewSource has what connects to Apple from now on come from another address, as
// a client that knows nothing of the one before.
func (w *Wires) NewSource() { w.source.Add(1) }

// sourceAddress is one of those of IPv4's loopback, different for each process.
func (w *Wires) sourceAddress() net.Addr {
	n := w.source.Load()
	return &net.TCPAddr{IP: net.IPv4(127, byte(10+w.relay), byte(n>>8), byte(n))}
}

// makeWires makes the wires of a relay, save those to Apple.
func (r *Rig) makeWires(i int) error {
	p := &r.places[i]
	p.wires = &Wires{relay: i}
	w, err := wire.New("tcp", "127.0.0.1:0", dialTo("tcp", p.agents))
	if err != nil {
		return err
	}
	p.wires.Agents = w
	if r.database == nil {
		return nil
	}
	dir := r.path(fmt.Sprint("db", i))
	if err := os.Mkdir(dir, 0o700); err != nil {
		return fmt.Errorf("make a directory for sockets: %w", err)
	}
	var hosts, ports []string
	for n, server := range r.database.servers() {
		port := fmt.Sprint(5432 + n)
		w, err := wire.New("unix", filepath.Join(dir, ".s.PGSQL."+port), dialTo("unix", server.Socket()))
		if err != nil {
			return err
		}
		p.wires.Database = append(p.wires.Database, w)
		hosts, ports = append(hosts, dir), append(ports, port)
	}
	p.database = "postgres:///" + databaseName + "?" + url.Values{
		"user": {"postgres"}, "host": {strings.Join(hosts, ",")}, "port": {strings.Join(ports, ",")},
	}.Encode()
	return nil
}

// wireApple makes the relay's wires to Apple, over both families and with one
// port, under the name localhost.
func (r *Rig) wireApple(w *Wires) error {
	dial := func(ctx context.Context) (net.Conn, error) {
		simulator := r.apple.Load()
		address := simulator.Address
		if w.sandbox.Load() {
			address = simulator.Sandbox
		}
		return (&net.Dialer{LocalAddr: w.sourceAddress()}).DialContext(ctx, "tcp", address)
	}
	var err error
	for range 100 { // the port may be taken in the other family
		address, free := freeport.Address()
		if free != nil {
			return free
		}
		if w.Apple[0], err = wire.New("tcp", address, dial); err != nil {
			continue
		}
		_, port, _ := net.SplitHostPort(address) // it is one
		w.apple = "localhost:" + port
		if w.Apple[1], err = wire.New("tcp", "[::1]:"+port, dial); err == nil || !hasIPv6() {
			return nil
		}
		w.Apple[0].Close()
	}
	return err
}

// hasIPv6 reports whether IPv6's loopback can be listened on.
func hasIPv6() bool {
	l, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		return false
	}
	_ = l.Close() // nobody has it
	return true
}

func dialTo(network, address string) func(ctx context.Context) (net.Conn, error) {
	return func(ctx context.Context) (net.Conn, error) { return new(net.Dialer).DialContext(ctx, network, address) }
}

// close ends those that were made.
func (w *Wires) close() {
	for _, each := range slices.Concat([]*wire.Wire{w.Agents}, w.Database, w.Apple[:]) {
		if each != nil {
			each.Close()
		}
	}
}

// FailOver kills the database's server and has its standby take over. The rig
// must have one.
func (r *Rig) FailOver() error { return r.database.failOver() }

func (d *database) servers() []*postgrestest.Private {
	if d.standby == nil {
		return []*postgrestest.Private{d.server}
	}
	return []*postgrestest.Private{d.server, d.standby}
}

func (d *database) failOver() error {
	if d.standby == nil {
		return errors.New("the database has no standby")
	}
	d.server.Kill()
	if err := d.standby.Promote(); err != nil {
		return fmt.Errorf("promote the standby: %w", err)
	}
	return nil
}

// addressOfApple is where the relay at a place finds Apple.
func (r *Rig) addressOfApple(at *place) string {
	if at.wires == nil {
		return r.apple.Load().Address
	}
	return at.wires.apple
}

// urlOfDatabase is where the relay at a place finds the registry.
func (r *Rig) urlOfDatabase(at *place) string {
	return cmp.Or(at.database, r.database.server.URL(databaseName))
}
