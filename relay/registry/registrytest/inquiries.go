package registrytest

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"badgerelay/relay"
	"badgerelay/relay/registry"
)

// Inquirer is one of several relays that share a database, and ask each other over it.
type Inquirer interface {
	OnInquiry(fn func(context.Context, registry.Inquiry) (name string, answer []byte)) (cancel func())
	Inquire(ctx context.Context, q registry.Inquiry, enough func(map[string][]byte) bool) (map[string][]byte, error)
}

// timeout bounds what takes milliseconds.
const timeout = 20 * time.Second

// RunInquiries tests how relays ask each other. open returns three relays of a new
// database, whose Run has begun to listen.
func RunInquiries(t *testing.T, open func(t *testing.T) [3]Inquirer) {
	relays := open(t)
	a, b, c := relays[0], relays[1], relays[2]
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	odd := registry.Inquiry{Relay: "a", Organization: 1<<63 - 1, Mailbox: strings.Repeat("\x00\\\"'", relay.MaxMailboxSize/4)}
	large := []byte(strings.Repeat("\x00\xff", 1<<19)) // no notification takes as much
	asked := make(chan registry.Inquiry, 100)
	answer := func(name string, content func(q registry.Inquiry) []byte) func(context.Context, registry.Inquiry) (string, []byte) {
		return func(_ context.Context, q registry.Inquiry) (string, []byte) {
			asked <- q
			return name, content(q)
		}
	}
	a.OnInquiry(answer("", func(registry.Inquiry) []byte { return []byte("its own, which counts for nothing") }))
	b.OnInquiry(answer("b:1", func(registry.Inquiry) []byte { return large }))
	leave := c.OnInquiry(answer("c:1", func(q registry.Inquiry) []byte { return []byte(q.Mailbox) }))
	from := func(names ...string) func(map[string][]byte) bool {
		return func(answers map[string][]byte) bool {
			return !slices.ContainsFunc(names, func(name string) bool { return answers[name] == nil })
		}
	}

	t.Run("all answer", func(t *testing.T) {
		answers, err := a.Inquire(ctx, odd, from("b:1", "c:1"))
		if err != nil || len(answers) != 2 || string(answers["b:1"]) != string(large) || string(answers["c:1"]) != odd.Mailbox {
			t.Errorf("got answers of %v, %v; want those of b and c as they were given", slices.Sorted(maps.Keys(answers)), err)
		}
		for range 3 {
			select {
			case q := <-asked:
				if q.ID == "" || q.Relay != odd.Relay || q.Organization != odd.Organization || q.Mailbox != odd.Mailbox {
					t.Errorf("a relay was asked %+v, want %+v with an id", q, odd)
				}
			case <-ctx.Done():
				t.Fatal("not every relay was asked, the one that asks included")
			}
		}
	})
	t.Run("at once", func(t *testing.T) {
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				q := registry.Inquiry{Relay: "a", Organization: 1, Mailbox: fmt.Sprint("user", i)}
				answers, err := relays[i%2].Inquire(ctx, q, from("c:1"))
				if err != nil || string(answers["c:1"]) != q.Mailbox {
					t.Errorf("got %q, %v; want the answer to %s", answers["c:1"], err, q.Mailbox)
				}
			})
		}
		wg.Wait()
	})
	t.Run("one has left", func(t *testing.T) {
		leave()
		short, cancel := context.WithCancel(ctx)
		defer cancel()
		answers, err := a.Inquire(short, odd, func(answers map[string][]byte) bool {
			if answers["b:1"] != nil {
				cancel() // it has come, and the other one won't
			}
			return false
		})
		if err != nil || len(answers) != 1 || len(answers["b:1"]) != len(large) {
			t.Errorf("got answers of %v, %v; want the one that came and no error", slices.Sorted(maps.Keys(answers)), err)
		}
	})
}
