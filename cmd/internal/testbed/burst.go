package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"golang.org/x/sync/errgroup"

	"badgerelay/cmd/internal/child"
	"badgerelay/cmd/internal/rig"
	"badgerelay/relay/agent/imap/imaptest"
)

const (
	workers = 8               // deliveries and reads at once; Dovecot's lmtpd takes ten
	settled = 2 * time.Minute // what badges may take after the last event
)

// Report is what a burst came to.
type Report struct {
	Mailboxes  int     `json:"mailboxes"`
	Deliveries int     `json:"deliveries"`
	Reads      int     `json:"reads"`
	Seconds    float64 `json:"seconds"`
	// SettledSeconds is from the last event until every badge was right.
	SettledSeconds float64 `json:"settledSeconds"`
	WrongBadges    int     `json:"wrongBadges"`
	Pushes         uint64  `json:"pushes"`
	ClientFaults   int     `json:"clientFaults"`
	Cost
	// Idle is what it costs to watch mailboxes in which nothing happens; nil where that
	// was not measured before the burst.
	Idle *Cost `json:"idle,omitempty"`
}

// Cost is what the processes used in a time.
type Cost struct {
	Over  float64 `json:"costSeconds"` // the time
	Agent Used    `json:"agent"`
	Relay Used    `json:"relay"`
}

// Used is what a process used in a time.
type Used struct {
	CPUSeconds      float64 `json:"cpuSeconds"`
	MicrosPerEvent  float64 `json:"cpuUsPerEvent,omitempty"`     // of a burst
	SecondsPerHour  float64 `json:"cpuSecondsPerHour,omitempty"` // where nothing happens
	ResidentMiB     float64 `json:"residentMib"`                 // at the end
	PeakResidentMiB float64 `json:"peakResidentMib"`             // the most ever
}

// Users returns the names of n users.
func Users(n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("user%04d", i+1)
	}
	return names
}

// Play waits until the agent has counted every mailbox, measures for idle, if that is
// not 0, delivers and reads mail so many times, waits until every phone shows what its
// mailbox holds, and tells what it cost. Badges that are wrong in the end
// are told in the report; an error means that it could not be played.
func (w *Testbed) Play(ctx context.Context, idle time.Duration, events int) (*Report, error) {
	if err := w.counted(ctx); err != nil {
		return nil, err
	}
	r := &Report{Mailboxes: len(w.Users)}
	if idle > 0 {
		rig.Wait(ctx, sentAgain) // then the agent has nothing more to say of its start
		cost, err := w.cost(0, func() error { rig.Wait(ctx, idle); return ctx.Err() })
		if err != nil {
			return nil, err
		}
		r.Idle = &cost
	}
	var err error
	r.Cost, err = w.cost(events, func() error { return w.playAndSettle(ctx, events, r) })
	if err == nil {
		r.ClientFaults, _, err = w.Phones.ClientFaults(ctx)
	}
	return r, err
}

func (w *Testbed) playAndSettle(ctx context.Context, events int, r *Report) error {
	began := time.Now()
	players, err := w.play(ctx, events)
	if err != nil {
		return err
	}
	played := time.Now()
	r.Seconds = played.Sub(began).Seconds()
	unread := make(map[string]uint32, len(w.Users))
	for _, p := range players {
		r.Deliveries, r.Reads = r.Deliveries+p.deliveries, r.Reads+p.reads
		for user, n := range p.unread {
			unread[Mailbox(user)] = n
		}
	}
	err = w.settle(ctx, unread, r)
	r.SettledSeconds = time.Since(played).Seconds()
	return err
}

// cost returns what the agent and the relay used while f ran and made so many events.
func (w *Testbed) cost(events int, f func() error) (c Cost, err error) {
	processes, used := []*child.Process{w.Agent, w.Relay}, []*Used{&c.Agent, &c.Relay}
	var before [2]child.Usage
	for i, p := range processes {
		if before[i], err = p.Usage(); err != nil {
			return c, err
		}
	}
	if err := f(); err != nil {
		return c, err
	}
	for i, p := range processes {
		after, err := p.Usage()
		if err != nil {
			return c, err
		}
		const mib = 1 << 20
		c.Over = after.At.Sub(before[i].At).Seconds()
		u := Used{CPUSeconds: (after.CPU - before[i].CPU).Seconds(), ResidentMiB: float64(after.Resident) / mib, PeakResidentMiB: float64(after.Peak) / mib}
		if events > 0 {
			u.MicrosPerEvent = u.CPUSeconds * 1e6 / float64(events)
		} else {
			u.SecondsPerHour = u.CPUSeconds * 3600 / c.Over
		}
		*used[i] = u
	}
	return c, nil
}

// counted returns when the agent has counted each mailbox, as it does after its start:
// at most fifty a second.
func (w *Testbed) counted(ctx context.Context) error {
	return rig.Poll(ctx, 100*time.Millisecond, func() (bool, error) {
		m, err := rig.Scrape(ctx, w.ports.agentOps)
		return int(m.Sum("badgeagent_mailboxes")) == len(w.Users) && m.Sum("badgeagent_mailboxes_waiting") == 0, err
	})
}

// sentAgain is how long after a start an agent sends its counts once more: when relays
// can have nothing of an earlier agent's in flight (Welcome.max_in_flight, a minute).
const sentAgain = 75 * time.Second

// settle polls until every phone shows its mailbox's count or the time is over,
// and notes what is wrong then.
func (w *Testbed) settle(ctx context.Context, unread map[string]uint32, r *Report) error {
	deadline := time.Now().Add(settled)
	return rig.Poll(ctx, 50*time.Millisecond, func() (bool, error) {
		phones, err := w.Phones.All(ctx)
		r.WrongBadges, r.Pushes = 0, 0
		for mailbox, n := range unread {
			r.Pushes += phones[mailbox].Pushes
			if phones[mailbox].Badge != n {
				r.WrongBadges++
			}
		}
		return r.WrongBadges == 0 || time.Now().After(deadline), err // the report says how many are wrong
	})
}

// player changes its own share of the mailboxes, and knows what they hold.
type player struct {
	server            *imaptest.Server
	courier           *imaptest.Courier
	random            *rand.Rand
	users             []string
	unread            map[string]uint32
	deliveries, reads int
}

// play runs the players.
func (w *Testbed) play(ctx context.Context, events int) ([]*player, error) {
	players := make([]*player, min(workers, len(w.Users)))
	tasks, ctx := errgroup.WithContext(ctx)
	for i := range players {
		p := &player{server: w.Dovecot, random: rand.New(rand.NewPCG(1, uint64(i))), unread: make(map[string]uint32)}
		for u := i; u < len(w.Users); u += len(players) {
			p.users = append(p.users, w.Users[u])
		}
		players[i] = p
		share := (events + i) / len(players)                 // together events
		tasks.Go(func() error { return p.play(ctx, share) }) // ends with its events, or with ctx
	}
	return players, tasks.Wait()
}

func (p *player) play(ctx context.Context, events int) (err error) {
	if p.courier, err = p.server.Courier(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.courier.Close()) }()
	for range events {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		user := p.users[p.random.IntN(len(p.users))]
		if p.unread[user] > 0 && p.random.IntN(5) < 3 {
			err = p.read(user)
		} else {
			err = p.deliver(user)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (p *player) deliver(user string) error {
	p.deliveries++
	p.unread[user]++
	return p.courier.Deliver(user, fmt.Sprintf("mail %d", p.deliveries))
}

// read marks one unread message read, or all of them.
func (p *player) read(user string) error {
	p.reads++
	r, err := p.server.Reader(user)
	if err != nil {
		return err
	}
	defer r.Close() // what was done has been answered
	unread, err := r.Messages(true)
	if err != nil {
		return err
	}
	if len(unread) != int(p.unread[user]) {
		return fmt.Errorf("%s has %d unread messages, not %d", user, len(unread), p.unread[user])
	}
	if p.random.IntN(3) > 0 {
		unread = unread[:1]
	}
	p.unread[user] -= uint32(len(unread))
	return r.MarkRead(unread...)
}
