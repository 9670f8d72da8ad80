package apns_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"badgerelay/apns"
)

// bubble runs a test in fake time.
func bubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	testKeys()
	synctest.Test(t, f)
}

// onlyFirst scripts the first connection; later ones accept everything.
func onlyFirst(script func(*peerConn)) func(*peerConn) {
	return func(c *peerConn) {
		if c.n == 1 {
			script(c)
			return
		}
		c.settle(streams(1000))
		c.serveOK()
	}
}

func TestWaitsForSettingsThenOneStream(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var first, early, second *peerRequest
		p := newPeer(t, func(c *peerConn) {
			early = c.requestWithin(time.Second)
			c.settle(streams(100))
			if first = c.request(); first == nil {
				return
			}
			second = c.requestWithin(2 * time.Second)
			c.ok(first)
			c.serveOK()
		})
		f := startPool(t, apns.Config{Dial: p.Dial, MaxConns: 1})
		f.put(0, 50)
		time.Sleep(time.Second - time.Millisecond)
		synctest.Wait()
		if got := f.pool.Stats(); got.StreamsGranted != 0 || got.InFlight != 0 {
			t.Errorf("before the first SETTINGS: %+v", got)
		}
		time.Sleep(2*time.Second - time.Millisecond)
		synctest.Wait()
		if got := f.pool.Stats(); got.StreamsGranted != 1 || got.InFlight != 1 {
			t.Errorf("before the first answer: %+v", got)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if early != nil || first == nil || second != nil {
			t.Errorf("before SETTINGS %v, first %v, before its answer %v", early, first, second)
		}
		if got := f.accepted(); got != 50 {
			t.Errorf("%d of 50 accepted", got)
		}
		if got := f.pool.Stats(); got.StreamsGranted != 100 || got.InFlight != 0 || got.State != apns.StateUp {
			t.Errorf("after all answers: %+v", got)
		}
	})
}

func TestRequestOnTheWire(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var got []*peerRequest
		var lens []int
		p := newPeer(t, func(c *peerConn) {
			c.settle(streams(1))
			for r := c.request(); r != nil; r = c.request() {
				got, lens = append(got, r), append(lens, c.blockLen)
				c.ok(r)
			}
		})
		f := startPool(t, apns.Config{Dial: p.Dial, Lifetime: 24 * time.Hour})
		f.put(0, 6)
		synctest.Wait()
		if len(got) != 6 {
			t.Fatalf("%d pushes arrived", len(got))
		}
		// The bubble begins on the hour; a day later, rounded up.
		expires := fmt.Sprint(time.Now().Truncate(time.Hour).Add(25 * time.Hour).Unix())
		for i, r := range got {
			priority := "10"
			if i%2 == 1 {
				priority = "5"
			}
			for name, want := range map[string]string{
				":method": "POST", ":scheme": "https", ":authority": "push.example",
				":path":           "/3/device/" + device(i).Hex(),
				"apns-topic":      testTopic,
				"apns-push-type":  "alert",
				"apns-priority":   priority,
				"apns-expiration": expires,
			} {
				if r.get(name) != want {
					t.Errorf("push %d: %s is %q, want %q", i, name, r.get(name), want)
				}
			}
			if !strings.HasPrefix(r.get("authorization"), "bearer ey") || len(r.fields) != 9 {
				t.Errorf("push %d: header fields %v", i, r.fields)
			}
			if want := fmt.Sprintf(`{"aps":{"badge":%d}}`, i); string(r.body) != want {
				t.Errorf("push %d: body %q, want %q", i, r.body, want)
			}
		}
		// 2 indexed, :path literal, 6 indexed: from the third push on.
		if want := 2 + 2 + 74 + 6; lens[2] > want || lens[5] > want {
			t.Errorf("header blocks of %v bytes, want at most %d from the third on", lens, want)
		}
	})
}

func TestStreamLimitMoves(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var mu sync.Mutex // guards waiting
		var waiting []*peerRequest
		var conn *peerConn
		p := newPeer(t, func(c *peerConn) {
			conn = c
			c.settle(streams(20))
			c.ok(c.request())
			for r := c.request(); r != nil; r = c.request() {
				mu.Lock()
				waiting = append(waiting, r)
				mu.Unlock()
			}
		})
		answer := func() {
			mu.Lock()
			batch := waiting
			waiting = nil
			mu.Unlock()
			for _, r := range batch {
				conn.ok(r)
			}
			synctest.Wait()
		}
		want := func(n int, when string) {
			t.Helper()
			mu.Lock()
			defer mu.Unlock()
			if len(waiting) != n {
				t.Errorf("%s: %d open, want %d", when, len(waiting), n)
			}
		}
		f := startPool(t, apns.Config{Dial: p.Dial, MaxConns: 1})
		f.put(0, 100)
		synctest.Wait()
		want(20, "limit 20")
		conn.settle(streams(1))
		synctest.Wait()
		want(20, "limit lowered to 1 with 20 open")
		answer()
		want(1, "limit 1")
		conn.settle(streams(0))
		synctest.Wait()
		answer()
		want(0, "limit 0")
		time.Sleep(time.Minute)
		synctest.Wait()
		want(0, "limit 0 for a minute")
		conn.settle(streams(7))
		synctest.Wait()
		want(7, "limit 7")
		for f.accepted() < 100 && !t.Failed() {
			answer()
			want(min(7, 100-f.accepted()), "limit 7 again")
		}
		if p.connections() != 1 {
			t.Errorf("%d connections", p.connections())
		}
	})
}
