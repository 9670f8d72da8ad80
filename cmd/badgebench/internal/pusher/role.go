package pusher

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"runtime"
	"runtime/pprof"
	"sync"
	"sync/atomic"
	"time"

	"badgerelay/apns"
	"badgerelay/cmd/internal/child"
	"badgerelay/cmd/internal/configfile"
	"badgerelay/cmd/internal/rig/names"
)

// RoleName is the role's name on the command line.
const RoleName = "pusher"

// Config says how to push, and where to.
type Config struct {
	Address           string
	CAFile            string // to trust, PEM
	KeyFile           string // signs provider tokens
	Engine            apns.Engine
	Devices           int
	Pools             int // each with up to Connections connections
	Connections       int
	ConnectsPerSecond float64
	Profile           string // file for a CPU profile of what is measured; empty: none
}

// Pushed is what one run of pushes did and cost.
type Pushed struct {
	Accepted, Refused int64
	Failure           string // of the last that was refused
	Elapsed, CPU      time.Duration
	Allocations       uint64
	Written, Writes   int64 // bytes and writes to sockets: TLS records, or several at once
	Connections       int
}

// Role is the role's side. Its methods are called by net/rpc.
type Role struct {
	config          Config
	supply          *supply
	pools           []*apns.Pool
	cancel          context.CancelFunc
	wg              sync.WaitGroup
	written, writes atomic.Int64
}

// Run serves a parent until it lets go.
func Run(in, out *os.File) error {
	r := &Role{}
	err := child.Serve(in, out, r)
	if r.cancel != nil {
		r.cancel()
		r.wg.Wait()
	}
	return err
}

// Start makes the pools; they connect when there is work. It is the first
// call, and made once.
func (r *Role) Start(c Config, _ *struct{}) error {
	if r.cancel != nil {
		return errors.New("the pusher runs already")
	}
	token, err := tokenSource(c.KeyFile)
	if err != nil {
		return err
	}
	roots, err := configfile.Pool(c.CAFile)
	if err != nil {
		return err
	}
	r.config, r.supply = c, newSupply(c.Devices)
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel = cancel
	for range c.Pools {
		pool, err := apns.NewPool(apns.Config{
			App: names.App, Topic: names.Topic, Addr: c.Address, Engine: c.Engine, Token: token, RootCAs: roots,
			MaxConns: c.Connections, ConnectsPerSecond: c.ConnectsPerSecond, IdleTimeout: -1,
			DrainTimeout: time.Second, Source: r.supply, Dial: r.dial,
			Logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
		})
		if err != nil {
			return err
		}
		r.pools = append(r.pools, pool)
		r.wg.Go(func() { _ = pool.Run(ctx) }) // ends with ctx; always nil
	}
	return nil
}

func tokenSource(file string) (*apns.TokenSource, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read signing key: %w", err)
	}
	key, err := apns.ParseSigningKey(data)
	if err != nil {
		return nil, err
	}
	return apns.NewTokenSource(apns.TokenConfig{Key: key, KeyID: names.KeyID, TeamID: names.TeamID})
}

// dial counts what is written beneath TLS.
func (r *Role) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	nc, err := new(net.Dialer).DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	return &countedConn{nc, r}, nil
}

type countedConn struct {
	net.Conn
	r *Role
}

func (c *countedConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.r.writes.Add(1)
	c.r.written.Add(int64(n))
	return n, err
}

// Push pushes n badges as fast as they go and waits for the answers.
func (r *Role) Push(n int64, p *Pushed) error {
	return r.measure(p, func() error {
		r.supply.due.Store(n)
		r.supply.left.Store(n)
		r.wake()
		select {
		case <-r.supply.done:
			return nil
		case <-time.After(10 * time.Minute):
			return fmt.Errorf("%d of %d pushes were not answered", r.supply.due.Load(), n)
		}
	})
}

func (r *Role) wake() {
	for _, p := range r.pools {
		p.Wake()
	}
}

// WarmUp pushes until every pool has a connection that is proven and buffers
// have grown.
func (r *Role) WarmUp(n int64, p *Pushed) error {
	profile := r.config.Profile
	defer func() { r.config.Profile = profile }()
	r.config.Profile = ""
	deadline := time.Now().Add(time.Minute)
	for {
		if err := r.Push(n, p); err != nil || p.Refused > 0 {
			return err
		}
		if p.Connections == len(r.pools) {
			return r.Push(n, p)
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%d of %d connections are up", p.Connections, len(r.pools))
		}
	}
}

// measure fills p with what f does and costs.
func (r *Role) measure(p *Pushed, f func() error) error {
	*p = Pushed{}
	stop, err := profile(r.config.Profile)
	if err != nil {
		return err
	}
	s := r.supply
	s.accepted.Store(0)
	s.refused.Store(0)
	runtime.GC() // what came before is not to be paid for here
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	written, writes := r.written.Load(), r.writes.Load()
	from, err := child.UsageOf(os.Getpid())
	if err != nil {
		return err
	}
	if err := f(); err != nil {
		return err
	}
	to, err := child.UsageOf(os.Getpid())
	if err != nil {
		return err
	}
	runtime.ReadMemStats(&after)
	p.Accepted, p.Refused = s.accepted.Load(), s.refused.Load()
	p.Elapsed, p.CPU = to.At.Sub(from.At), to.CPU-from.CPU
	p.Allocations = after.Mallocs - before.Mallocs
	p.Written, p.Writes = r.written.Load()-written, r.writes.Load()-writes
	if err := s.failure.Load(); err != nil {
		p.Failure = err.Error()
	}
	for _, pool := range r.pools {
		p.Connections += pool.Stats().Connections
	}
	return stop()
}

// profile starts a CPU profile, if there is a file for it.
func profile(path string) (stop func() error, err error) {
	if path == "" {
		return func() error { return nil }, nil
	}
	f, err := os.Create(path)
	if err != nil {
		return nil, fmt.Errorf("write profile: %w", err)
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, errors.Join(fmt.Errorf("start profile: %w", err), f.Close())
	}
	return func() error {
		pprof.StopCPUProfile()
		return f.Close()
	}, nil
}

var _ io.Writer = (*countedConn)(nil)
