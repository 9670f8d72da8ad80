package apns

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"
)

// How a name with several addresses is reached. The delays are ours: RFC 8305,
// section 5, recommends 250 ms between attempts and allows 100; Apple is to see
// few connections that come to nothing.
const (
	attemptDelay   = 150 * time.Millisecond // what an address may take until another is tried beside it
	handshakeDelay = 300 * time.Millisecond // and, once it answers, its handshake; at least four round trips
	mostAttempts   = 16                     // addresses that one attempt to connect tries
	mostAnswered   = 3                      // and those of them whose handshakes fail
	// unreachedFor is how long an address that was not reached is tried last.
	unreachedFor = 10 * time.Minute
	// knownFor is how long a name's last addresses serve where it can't be
	// resolved, and lookupPatience how long that is tried while there are some.
	knownFor       = 24 * time.Hour
	lookupPatience = time.Second
)

// reach is what a pool knows of the addresses that it connects to. It is safe for
// concurrent use.
type reach struct {
	mu        sync.Mutex               // guards what follows
	unreached map[netip.Addr]time.Time // when it was tried in vain
	trying    map[netip.Addr]int       // by connections that are being opened
	known     []netip.Addr             // what the name stood for
	knownAt   time.Time
}

// miss notes that an address was not reached; the fault must be on the way.
func (r *reach) miss(addr netip.Addr, now time.Time) {
	if !addr.IsValid() {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.unreached == nil {
		r.unreached = map[netip.Addr]time.Time{}
	}
	r.unreached[addr] = now
	for other, at := range r.unreached {
		if now.Sub(at) >= unreachedFor {
			delete(r.unreached, other) // names move
		}
	}
}

func (r *reach) hit(addr netip.Addr) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.unreached, addr)
}

// begin and end note that an address is being tried: whether it is reached is not
// known meanwhile, so another connection rather tries others.
func (r *reach) begin(addr netip.Addr) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.trying == nil {
		r.trying = map[netip.Addr]int{}
	}
	r.trying[addr]++
}

func (r *reach) end(addr netip.Addr) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.trying[addr]--; r.trying[addr] == 0 {
		delete(r.trying, addr)
	}
}

// order returns the addresses as they are to be tried: those that have the
// fewest connections first, chance among equals, the families in turn (RFC 8305,
// section 4); then those without a connection that are being tried; those that
// were not reached lately last, the longest ago first.
func (r *reach) order(addrs []netip.Addr, used map[netip.Addr]int, now time.Time) []netip.Addr {
	r.mu.Lock()
	defer r.mu.Unlock()
	var good, open, bad []netip.Addr
	for _, addr := range addrs {
		if at, missed := r.unreached[addr]; missed && now.Sub(at) < unreachedFor {
			bad = append(bad, addr)
		} else if r.trying[addr] > 0 && used[addr] == 0 {
			open = append(open, addr)
		} else {
			good = append(good, addr)
		}
	}
	rand.Shuffle(len(good), func(i, j int) { good[i], good[j] = good[j], good[i] })
	slices.SortStableFunc(good, func(a, b netip.Addr) int { return cmp.Compare(used[a], used[b]) })
	slices.SortStableFunc(bad, func(a, b netip.Addr) int { return r.unreached[a].Compare(r.unreached[b]) })
	return slices.Concat(alternate(good), open, bad)
}

// alternate has the families take turns, that of the first first.
func alternate(addrs []netip.Addr) []netip.Addr {
	var turns [2][]netip.Addr
	for _, addr := range addrs {
		family := 0
		if addr.Is4() != addrs[0].Is4() {
			family = 1
		}
		turns[family] = append(turns[family], addr)
	}
	var all []netip.Addr
	for i := range addrs {
		for _, family := range turns {
			if i < len(family) {
				all = append(all, family[i])
			}
		}
	}
	return all
}

// attempt is what became of trying one address.
type attempt struct {
	number   int
	answered bool // it takes a connection; more is to come
	took     time.Duration
	nc       net.Conn
	err      error
}

// race tries addresses one after the other, and beside those that take long,
// until one is reached. try calls answered when the address takes the
// connection, and ends with its ctx. Every try has ended when race returns.
func (r *reach) race(ctx context.Context, addrs []netip.Addr, try func(ctx context.Context, addr netip.Addr, answered func()) (net.Conn, error)) (net.Conn, netip.Addr, error) {
	addrs = addrs[:min(len(addrs), mostAttempts)]
	within, enough := context.WithCancel(ctx)
	defer enough()
	attempts := make(chan attempt)
	began, running := 0, 0
	begin := func() {
		number, at := began, time.Now()
		began++
		running++
		r.begin(addrs[number])
		go func() { // ends with within; race waits for it
			nc, err := try(within, addrs[number], func() { attempts <- attempt{number: number, answered: true, took: time.Since(at)} })
			r.end(addrs[number])
			attempts <- attempt{number: number, nc: nc, err: err}
		}()
	}
	begin()
	next := time.NewTimer(attemptDelay)
	defer next.Stop()
	var won *attempt
	var failures []error
	answered := map[int]bool{} // and not ended
	refused := 0               // answered, and ended in vain
	for running > 0 {
		more := won == nil && began < len(addrs) && within.Err() == nil
		select {
		case a := <-attempts:
			if a.answered {
				answered[a.number] = true
				next.Reset(max(handshakeDelay, 4*a.took))
				continue
			}
			running--
			switch {
			case a.err == nil && won == nil:
				won = &a
				enough()
			case a.err == nil:
				_ = a.nc.Close() // another was first
			case won == nil:
				failures = append(failures, a.err)
				if answered[a.number] {
					refused++
				}
				if oursToBlame(a.err) || refused >= mostAnswered {
					enough()
					more = false
				}
				if !oursToBlame(a.err) {
					r.miss(addrs[a.number], time.Now())
				}
				if more {
					begin()
					next.Reset(attemptDelay)
				}
			case a.number < won.number:
				r.miss(addrs[a.number], time.Now()) // it had more time than the one that won
			}
		case <-next.C:
			if more {
				begin()
				next.Reset(attemptDelay)
			}
		}
	}
	if won == nil {
		return nil, netip.Addr{}, errors.Join(failures...)
	}
	r.hit(addrs[won.number])
	return won.nc, addrs[won.number], nil
}

// oursToBlame reports a failure of this machine, which says nothing of an address.
func oursToBlame(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) || errors.Is(err, syscall.ENOBUFS)
}

// lookup resolves the host anew, as Apple asks before each connection
// ("Sending notification requests to APNs", read 2026-11). Go's resolver
// caches nothing. Where the name server is away, the addresses that the name had
// serve for a day.
func (r *reach) lookup(ctx context.Context, host string, find func(context.Context, string) ([]netip.Addr, error)) ([]netip.Addr, error) {
	if addr, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{addr.Unmap()}, nil
	}
	r.mu.Lock()
	known := r.known
	if time.Since(r.knownAt) >= knownFor {
		known = nil
	}
	r.mu.Unlock()
	if known != nil {
		within, cancel := context.WithTimeout(ctx, lookupPatience)
		defer cancel()
		ctx = within
	}
	addrs, err := find(ctx, host)
	if err == nil && len(addrs) == 0 {
		err = fmt.Errorf("look up %s: no addresses", host)
	}
	if err != nil && known != nil {
		return known, nil
	}
	if err != nil {
		return nil, err
	}
	addrs = slices.Clone(addrs)
	for i := range addrs {
		addrs[i] = addrs[i].Unmap()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.known, r.knownAt = addrs, time.Now()
	return addrs, nil
}
