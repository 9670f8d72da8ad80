package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"
)

// Phones are the simulated devices, seen through the simulator's management
// interface. Safe for concurrent use.
type Phones struct{ address string }

// Page is where a person sees them.
func (p *Phones) Page() string { return "http://" + p.address + "/" }

// deviceToken is the token of a user's phone.
func deviceToken(user string) string {
	sum := sha256.Sum256([]byte(user))
	return hex.EncodeToString(sum[:])
}

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
	body, err := json.Marshal(all)
	if err != nil {
		return err
	}
	return p.call(ctx, http.MethodPost, "api/devices", body, nil)
}

// Leave has the app uninstalled from a user's phone: Apple says so of its token.
func (p *Phones) Leave(ctx context.Context, user string) error {
	return p.call(ctx, http.MethodDelete, "api/devices/"+deviceToken(user), nil, nil)
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
	if err := p.call(ctx, http.MethodGet, "api/devices"+query, nil, &list); err != nil {
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
	for tick := time.NewTicker(5 * time.Millisecond); ; {
		phone, err := p.Of(ctx, user)
		if err == nil && phone.Badge == badge {
			tick.Stop()
			return time.Since(began), nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return 0, fmt.Errorf("the phone of %s shows %d after %v, not %d", user, phone.Badge, atMost, badge)
		}
	}
}

// ClientFaults returns how often the relay did what Apple would hold against
// it, and what.
func (p *Phones) ClientFaults(ctx context.Context) (total int, which map[string]int, err error) {
	var stats struct {
		Total int            `json:"clientFaultsTotal"`
		Which map[string]int `json:"clientFaults"`
	}
	err = p.call(ctx, http.MethodGet, "api/stats", nil, &stats)
	return stats.Total, stats.Which, err
}

func (p *Phones) call(ctx context.Context, method, path string, body []byte, into any) error {
	request, err := http.NewRequestWithContext(ctx, method, p.Page()+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return fmt.Errorf("ask the simulator: %w", err)
	}
	defer answer.Body.Close()
	if answer.StatusCode >= http.StatusBadRequest {
		return errors.New("the simulator answers " + answer.Status)
	}
	if into == nil {
		return nil
	}
	return json.NewDecoder(answer.Body).Decode(into)
}
