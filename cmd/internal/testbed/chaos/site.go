package chaos

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"badgerelay/cmd/internal/rig"
	"badgerelay/cmd/internal/testbed/site"
)

// gather is how long changes wait to be told together.
const gather = 10 * time.Millisecond

// organization is an organization with its sites.
type organization struct {
	*rig.Organization
	sites []*siteKeeper
	admin sync.Mutex // held while an operator changes it
}

// siteOf returns the site of a mailbox.
func (o *organization) siteOf(mailbox int) *siteKeeper {
	return o.sites[(mailbox-o.First)%len(o.sites)]
}

// cutOffTime is how long streams may go on that have lost their right to: what
// the contract calls seconds, and what a busy machine takes.
const cutOffTime = 5 * time.Second

// cutOff waits until no site has a stream, as the relay has to see to, and
// returns an error if one keeps it.
func (s *stage) cutOff(ctx context.Context, o *organization) error {
	began, hindrances := time.Now(), s.hindrances.Load()
	return rig.Poll(ctx, 100*time.Millisecond, func() (bool, error) {
		connected := 0
		for _, k := range o.sites {
			if k.connected(ctx) {
				connected++
			}
		}
		if connected == 0 {
			return true, nil
		}
		if s.hindered.Load() > 0 || s.hindrances.Load() != hindrances {
			return true, nil // a relay can't see to what it can't hear of
		}
		if time.Since(began) > cutOffTime {
			return false, fmt.Errorf("%d streams of %s go on although they lost their right %v ago", connected, o.Name, cutOffTime)
		}
		return false, nil
	})
}

// siteKeeper keeps a site running, and tells it what its mailboxes hold: those
// of the organization for which siteOf returns it.
type siteKeeper struct {
	stage        *stage
	organization *organization
	number       int

	mu    sync.Mutex // guards what follows; never held while the site is asked
	site  *site.Site
	twin  *site.Site       // another process of the same agent; nil: there is none
	dirty map[int]struct{} // mailboxes whose present count the site has not been told

	change sync.Mutex // held while one site replaces another
}

// start starts the site's process and has it told everything.
func (k *siteKeeper) start(ctx context.Context) error {
	s, err := k.launch(ctx)
	if err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.site = s
	k.tellAll()
	return nil
}

// tellAll has everything told. mu must be held.
func (k *siteKeeper) tellAll() {
	o := k.organization
	for mailbox := o.First + k.number; mailbox < o.First+o.Mailboxes; mailbox += k.stage.config.Sites {
		k.dirty[mailbox] = struct{}{}
	}
}

// launch starts a process of the site's agent.
func (k *siteKeeper) launch(ctx context.Context) (*site.Site, error) {
	o := k.organization
	addresses := k.stage.world.AgentsOf(len(k.stage.relays))
	first := k.number % len(addresses)
	return site.Start(ctx, k.stage.world.Group, site.Config{
		Name: fmt.Sprintf("site-%d-%d", o.Number, k.number), Addresses: slices.Concat(addresses[first:], addresses[:first]),
		CAFile: k.stage.world.CAFile(), Store: o.Store,
		Watch: k.stage.config.WrongEnvironment, Organization: o.Name, Number: o.Number, First: o.First,
	})
}

// kill kills the site's process; its twin takes over, or a new process.
func (k *siteKeeper) kill(ctx context.Context) error {
	k.change.Lock()
	defer k.change.Unlock()
	k.current().Kill()
	if k.inherit() {
		return nil
	}
	return k.start(ctx)
}

// inherit makes the twin the site's process. It reports whether there is one.
func (k *siteKeeper) inherit() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.twin == nil {
		return false
	}
	k.site, k.twin = k.twin, nil
	k.tellAll()
	return true
}

// twinFor has a second process of the same agent run beside the site's, for d
// or until it has taken over. Then it ends in good order, or is killed.
func (k *siteKeeper) twinFor(ctx context.Context, d time.Duration, killed bool) error {
	if !k.change.TryLock() {
		return nil // it is being replaced
	}
	twin, err := k.launch(ctx)
	k.mu.Lock()
	if had := k.twin != nil; err == nil && had {
		twin.Kill() // one is enough
		twin = nil
	} else if err == nil {
		k.twin = twin
		k.tellAll()
	}
	k.mu.Unlock()
	k.change.Unlock()
	if err != nil || twin == nil {
		return err
	}
	rig.Wait(ctx, d)
	k.change.Lock()
	defer k.change.Unlock()
	k.mu.Lock()
	mine := k.twin == twin
	if mine {
		k.twin = nil
	}
	k.mu.Unlock()
	switch {
	case !mine: // it is the site's process by now
	case killed:
		twin.Kill()
	default:
		twin.End()
	}
	return nil
}

func (k *siteKeeper) current() *site.Site {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.site
}

// connected reports whether the site has a stream; one that was killed has none.
func (k *siteKeeper) connected(ctx context.Context) bool {
	k.mu.Lock()
	all := []*site.Site{k.site, k.twin}
	k.mu.Unlock()
	for _, s := range all {
		if s == nil {
			continue
		}
		if state, err := s.State(ctx); err == nil && state.Connected {
			return true
		}
	}
	return false
}

// tell has the site told what the mailbox holds.
func (k *siteKeeper) tell(mailbox int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.dirty[mailbox] = struct{}{}
}

// run tells the site until ctx is done.
func (k *siteKeeper) run(ctx context.Context) {
	for ctx.Err() == nil {
		rig.Wait(ctx, gather)
		s, twin, counts := k.take()
		if len(counts) == 0 {
			continue
		}
		if twin != nil {
			_ = twin.Set(ctx, counts) // it may have ended; whoever takes over is told everything
		}
		if err := s.Set(ctx, counts); err == nil {
			continue
		}
		// The site was killed; whichever is there next is told.
		for _, c := range counts {
			k.tell(c.Mailbox)
		}
	}
}

// take returns what the site has to be told.
func (k *siteKeeper) take() (s, twin *site.Site, counts []site.Count) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for mailbox := range k.dirty {
		if version := k.stage.truth.Version(mailbox); version > 0 {
			counts = append(counts, site.Count{Mailbox: mailbox, Version: version})
		}
	}
	clear(k.dirty)
	return k.site, k.twin, counts
}

func (k *siteKeeper) subscribe(ctx context.Context, to site.Subscription) error {
	return k.current().Subscribe(ctx, to)
}

// unsettled returns how many counts have not settled.
func (k *siteKeeper) unsettled(ctx context.Context) (uint64, error) {
	k.mu.Lock()
	dirty := len(k.dirty)
	k.mu.Unlock()
	state, err := k.current().State(ctx)
	return state.Ledger.Unsettled + uint64(dirty), err
}
