package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"slices"
	"time"

	"badgerelay/cmd/internal/rig"
	"badgerelay/cmd/internal/rig/apple"
)

// Phones are the simulated devices, seen through the simulator's management
// interface. Safe for concurrent use.
type Phones struct{ Console apple.Console }

// Page is where a person sees them.
func (p *Phones) Page() string { return string(p.Console) }

// deviceToken is the token of a user's phone.
func deviceToken(user string) string {
	sum := sha256.Sum256([]byte(user))
	return hex.EncodeToString(sum[:])
}

// mostDevices is how many the simulator takes in one request.
const mostDevices = 5000

func (p *Phones) add(ctx context.Context, users []string) error {
	type device struct {
		Token   string `json:"token"`
		Name    string `json:"name"`
		Mailbox string `json:"mailbox"`
		Topic   string `json:"topic"`
	}
	var all []device
	for _, user := range users {
		all = append(all, device{deviceToken(user), "iPhone of " + user, Mailbox(user), topic})
	}
	for some := range slices.Chunk(all, mostDevices) {
		if err := p.Console.Ask(ctx, http.MethodPost, "devices", some, nil); err != nil {
			return err
		}
	}
	return nil
}

// Leave has the app uninstalled from a user's phone: Apple says so of its token.
func (p *Phones) Leave(ctx context.Context, user string) error {
	return p.Console.Ask(ctx, http.MethodDelete, "devices/"+deviceToken(user), nil, nil)
}

// Phone is what one device shows.
type Phone struct {
	Mailbox string
	Badge   uint32 // 0: no badge
	Pushes  uint64
}

// All returns every phone, by mailbox.
func (p *Phones) All(ctx context.Context) (map[string]Phone, error) { return p.find(ctx, "") }

// Of returns one user's phone.
func (p *Phones) Of(ctx context.Context, user string) (Phone, error) {
	found, err := p.find(ctx, "?token="+deviceToken(user))
	return found[Mailbox(user)], err
}

func (p *Phones) find(ctx context.Context, query string) (map[string]Phone, error) {
	var list struct{ Devices []Phone }
	if err := p.Console.Ask(ctx, http.MethodGet, "devices"+query, nil, &list); err != nil {
		return nil, err
	}
	all := make(map[string]Phone, len(list.Devices))
	for _, phone := range list.Devices {
		all[phone.Mailbox] = phone
	}
	return all, nil
}

// Await polls until the user's phone shows the badge and returns how long that
// took. The simulator's stream of events would tell at once; asking is simpler
// and precise enough.
func (p *Phones) Await(ctx context.Context, user string, badge uint32, atMost time.Duration) (time.Duration, error) {
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, atMost)
	defer cancel()
	var shown uint32
	err := rig.Poll(ctx, 5*time.Millisecond, func() (bool, error) {
		phone, err := p.Of(ctx, user)
		if err == nil { // a simulator that is busy is asked again
			shown = phone.Badge
		}
		return err == nil && shown == badge, nil
	})
	if err != nil {
		return 0, fmt.Errorf("the phone of %s shows %d after %v, not %d", user, shown, atMost, badge)
	}
	return time.Since(began), nil
}

// ClientFaults returns how often the relay did what Apple would hold against
// it, and what.
func (p *Phones) ClientFaults(ctx context.Context) (total int, which map[string]int, err error) {
	var stats struct {
		Total int            `json:"clientFaultsTotal"`
		Which map[string]int `json:"clientFaults"`
	}
	err = p.Console.Ask(ctx, http.MethodGet, "stats", nil, &stats)
	return stats.Total, stats.Which, err
}
