package simulation

import (
	"cmp"
	"maps"
	"slices"
	"time"
)

// ownership is which organization a device is of where an app shows no sum across
// organizations: the one that registered it first, as long as that has a subscription.
type ownership struct {
	owner *organization // nil: none has a subscription
	// unclear: it is another one perhaps, because relays may have seen what happened in
	// another order, or not seen something that was over soon.
	unclear bool
	slack   time.Duration               // within which relays see what happens
	since   map[*organization]time.Time // when each that has subscriptions came
	left    map[*organization]time.Time // when each that had some left
}

// slackTime is the same where nothing hinders relays from reaching the registry, and
// one is perhaps started anew.
const slackTime = 20 * time.Second

func newOwnership(p *Plan) ownership {
	o := ownership{slack: slackTime, since: map[*organization]time.Time{}, left: map[*organization]time.Time{}}
	if p.has(SlowRegistry, FailRegistry, LoseRegistry, DeafRegistry, MoveUnheard) {
		o.slack = changeTime
	}
	return o
}

// note notes that an organization has subscriptions now, or has none.
func (o *ownership) note(by *organization, has bool, now time.Time) {
	_, had := o.since[by]
	switch {
	case has && !had:
		if left, was := o.left[by]; was && now.Sub(left) < o.slack {
			o.unclear = true
		}
		o.since[by] = now
	case has: // these may be new ones, which came later than another organization's
		for other, since := range o.since {
			o.unclear = o.unclear || other != by && now.Sub(since) < o.slack
		}
	case had:
		delete(o.since, by)
		o.left[by] = now
	}
	if _, keeps := o.since[o.owner]; !keeps {
		// Of several that came later it counts which subscriptions they have by now.
		o.unclear = o.unclear || len(o.since) > 1
		o.owner = o.first()
	}
}

// first returns the one that came first; of those that came at once, as in the
// beginning of a run, the one that was enrolled first.
func (o *ownership) first() *organization {
	all := slices.SortedFunc(maps.Keys(o.since), func(a, b *organization) int {
		return cmp.Or(o.since[a].Compare(o.since[b]), cmp.Compare(a.number, b.number))
	})
	if len(all) == 0 {
		return nil
	}
	return all[0]
}

// ownerOf returns which organization's counts alone a device shows; nil: it is not
// known.
func (w *world) ownerOf(d *device) *organization {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.owner.unclear || w.plan.has(Disable) || w.plan.Late.Kind == Outcast {
		return nil // an organization that is disabled loses a device to another one
	}
	return d.owner.owner
}

// obscureOwner notes that subscriptions of the device may have ended, each with its
// organization's next event.
func (d *device) obscureOwner() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.owner.unclear = true
}
