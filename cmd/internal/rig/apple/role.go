package apple

import (
	"context"
	"crypto/ecdsa"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"badgerelay/apns"
	"badgerelay/apns/apnstest"
	"badgerelay/cmd/internal/child"
	"badgerelay/cmd/internal/rig/names"
)

// RoleName is the role's name on the command line.
const RoleName = "simulator"

// Config says what to simulate.
type Config struct {
	PublicKey   []byte        // that provider tokens are verified with: PKIX, DER
	Fast        bool          // leave out history and the costlier checks
	RTT         time.Duration // how far away it is
	Trusting    bool          // no provider token, no phase of one stream: for h2load
	StreamLimit uint32        // 0: the simulator's default
	Devices     int           // registered from the start, by number
	Address     string        // where to listen; empty: 127.0.0.1 and a free port

	Seed              uint64        // of what is drawn at random; 0: any
	Jitter            time.Duration // answers take up to this longer
	ServerErrorWait   time.Duration // how long a payload may not come again after a 5xx; 0: Apple's
	BySource          bool          // each source address is a client of its own
	ConnectsPerMinute int           // before it counts as churn; 0: the simulator's default
}

// Info is where the simulator is.
type Info struct {
	Address   string
	Sandbox   string // address of the other environment, where no device is known
	Authority []byte // to trust, DER
}

// State is what the simulator has done so far.
type State struct {
	Stats        apnstest.Stats
	ClientFaults map[string]int
	FaultDevices map[string]int // the number of the device that each concerned last, where it concerns one
	Usage        child.Usage
}

// Role is the role's side. Its methods are called by net/rpc.
type Role struct {
	config Config
	sim    *apnstest.Simulator
	other  *apnstest.Simulator      // of the other environment
	number map[apns.DeviceToken]int // of each device
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// Run serves a parent until it lets go.
func Run(in, out *os.File) error {
	r := &Role{}
	err := child.Serve(in, out, r)
	if r.cancel != nil {
		r.cancel()
		r.sim.Close()
		r.other.Close()
		r.wg.Wait()
	}
	return err
}

// Start starts the simulator. It is the first call, and made once.
func (r *Role) Start(c Config, info *Info) error {
	if r.sim != nil {
		return errors.New("the simulator runs already")
	}
	public, err := x509.ParsePKIXPublicKey(c.PublicKey)
	if err != nil {
		return fmt.Errorf("parse public key: %w", err)
	}
	key, ok := public.(*ecdsa.PublicKey)
	if !ok {
		return errors.New("public key is not of an elliptic curve")
	}
	keys := []apnstest.TeamKey{{TeamID: names.TeamID, KeyID: names.KeyID, Key: key}}
	sim, err := apnstest.New(apnstest.Config{
		TeamKeys: keys,
		Topics:   []string{names.Topic}, StreamLimit: c.StreamLimit, Fast: c.Fast,
		RoundTrip: c.RTT, Trusting: c.Trusting, Seed: c.Seed, ServerErrorWait: c.ServerErrorWait, ConnectsPerMinute: c.ConnectsPerMinute, BySource: c.BySource,
		Faults: apnstest.Faults{Latency: apnstest.Latency{Jitter: c.Jitter}},
	})
	if err != nil {
		return fmt.Errorf("make simulator: %w", err)
	}
	r.number = make(map[apns.DeviceToken]int, c.Devices)
	for i := range c.Devices {
		r.number[names.Device(i)] = i
		sim.RegisterDevice(names.Device(i), names.Topic, apnstest.Production, apnstest.Meta{})
	}
	address := c.Address
	if address == "" {
		address = "127.0.0.1:0"
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	other, err := apnstest.New(apnstest.Config{
		Environment: apnstest.Sandbox, TeamKeys: keys, Topics: []string{names.Topic}, Authority: sim.Authority(), ConnectsPerMinute: -1,
	})
	if err != nil {
		return fmt.Errorf("make simulator: %w", err)
	}
	lOther, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r.config, r.sim, r.other, r.cancel = c, sim, other, cancel
	r.wg.Go(func() { _ = sim.Run(ctx, l) })        // ends with ctx
	r.wg.Go(func() { _ = other.Run(ctx, lOther) }) // as above
	*info = Info{Address: l.Addr().String(), Sandbox: lOther.Addr().String(), Authority: sim.Authority().CertificateDER()}
	return nil
}

// State returns what the simulator has done so far.
func (r *Role) State(_ struct{}, s *State) (err error) {
	s.Stats, s.ClientFaults, s.FaultDevices = r.sim.Stats(), r.sim.ClientFaults(), map[string]int{}
	for fault, device := range r.sim.LastFaultDevices() {
		s.FaultDevices[fault] = r.number[device]
	}
	s.Usage, err = child.UsageOf(os.Getpid())
	return err
}

// Badges returns what the devices show, by number.
func (r *Role) Badges(_ struct{}, badges *[]uint32) error {
	all := make([]uint32, r.config.Devices)
	for i := range all {
		d, ok := r.sim.Device(names.Device(i))
		if !ok {
			return fmt.Errorf("device %d is gone", i)
		}
		all[i] = d.Badge
	}
	*badges = all
	return nil
}
