// Package pusher is a client of Apple's alone: pools of apns with as much work as
// they take, or with a given rate, and nothing else of the relay.
package pusher

import (
	"context"
	"errors"
	"fmt"
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
}

// Pusher is a client of Apple's: pools with a supply of pushes.
type Pusher struct {
	config          Config
	supply          *supply
	pools           []*apns.Pool
	cancel          context.CancelFunc
	wg              sync.WaitGroup
	written, writes atomic.Int64
}

// Start makes the pools; they connect when there is work. The caller closes it.
func Start(c Config) (*Pusher, error) {
	token, err := tokenSource(c.KeyFile)
	if err != nil {
		return nil, err
	}
	roots, err := configfile.Pool(c.CAFile)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	p := &Pusher{config: c, supply: newSupply(c.Devices), cancel: cancel}
	for range c.Pools {
		pool, err := apns.NewPool(apns.Config{
			App: names.App, Topic: names.Topic, Addr: c.Address, Engine: c.Engine, Token: token, RootCAs: roots,
			MaxConns: c.Connections, ConnectsPerSecond: c.ConnectsPerSecond, IdleTimeout: -1,
			DrainTimeout: time.Second, Source: p.supply, Dial: p.dial,
			Logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
		})
		if err != nil {
			p.Close()
			return nil, err
		}
		p.pools = append(p.pools, pool)
		p.wg.Go(func() { _ = pool.Run(ctx) }) // ends with ctx; always nil
	}
	return p, nil
}

// Close ends the pools.
func (p *Pusher) Close() {
	p.cancel()
	p.wg.Wait()
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
func (p *Pusher) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	nc, err := new(net.Dialer).DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	return &countedConn{nc, p}, nil
}

type countedConn struct {
	net.Conn
	p *Pusher
}

func (c *countedConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.p.writes.Add(1)
	c.p.written.Add(int64(n))
	return n, err
}

// Push pushes n badges as fast as they go and waits for the answers.
func (p *Pusher) Push(ctx context.Context, n int64) (Pushed, error) {
	return p.measure(func() error { return p.push(ctx, n) })
}

func (p *Pusher) push(ctx context.Context, n int64) error {
	p.supply.due.Store(n)
	p.supply.left.Store(n)
	p.wake()
	select {
	case <-p.supply.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(10 * time.Minute):
		return fmt.Errorf("%d of %d pushes were not answered", p.supply.due.Load(), n)
	}
}

func (p *Pusher) wake() {
	for _, pool := range p.pools {
		pool.Wake()
	}
}

// WarmUp pushes until every pool has a connection that is proven and buffers
// have grown.
func (p *Pusher) WarmUp(ctx context.Context, n int64) error {
	deadline := time.Now().Add(time.Minute)
	for {
		if err := p.push(ctx, n); err != nil || p.supply.refused.Load() > 0 {
			return err // what was refused, Push is refused again
		}
		up := p.look(0).Connections
		if up == len(p.pools) {
			return p.push(ctx, n)
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%d of %d connections are up", up, len(p.pools))
		}
	}
}

// measure returns what f does and costs, with its profile.
func (p *Pusher) measure(f func() error) (pushed Pushed, err error) {
	stop, err := profile(p.config.Profile)
	if err != nil {
		return pushed, err
	}
	defer func() { err = errors.Join(err, stop()) }()
	s := p.supply
	s.accepted.Store(0)
	s.refused.Store(0)
	runtime.GC() // what came before is not to be paid for here
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	written, writes := p.written.Load(), p.writes.Load()
	from, err := child.UsageOf(os.Getpid())
	if err != nil {
		return pushed, err
	}
	if err := f(); err != nil {
		return pushed, err
	}
	to, err := child.UsageOf(os.Getpid())
	if err != nil {
		return pushed, err
	}
	runtime.ReadMemStats(&after)
	pushed = Pushed{
		Accepted: s.accepted.Load(), Refused: s.refused.Load(), Elapsed: to.At.Sub(from.At), CPU: to.CPU - from.CPU,
		Allocations: after.Mallocs - before.Mallocs, Written: p.written.Load() - written, Writes: p.writes.Load() - writes,
	}
	if err := s.failure.Load(); err != nil {
		pushed.Failure = err.Error()
	}
	return pushed, nil
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
