package apnstest

import (
	"bytes"
	"fmt"
	"maps"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"

	"badgerelay/apns"
)

// volley lets a client gather frames, so that they come in one piece as from a
// client with much to push; its end sends them.
func (c *client) volley(f func()) {
	c.t.Helper()
	direct := c.framer
	var frames bytes.Buffer
	c.framer = http2.NewFramer(&frames, nil)
	f()
	c.framer = direct
	if _, err := c.nc.Write(frames.Bytes()); err != nil {
		c.t.Fatal(err)
	}
}

// shot is one push of a volley.
type shot struct {
	device  int
	body    string
	changes []string
}

// TestFastLane wants the same answers and the same badges from fast mode, which
// takes most of these pushes a short way, as from the full one.
func TestFastLane(t *testing.T) {
	short := shot{2, `{"aps":{"badge":12}}`, nil}
	power := shot{3, `{"aps":{"badge":7}}`, []string{"apns-priority", "5"}}
	for _, test := range []struct {
		name  string
		lane  uint64 // how many the fast lane takes, after each kind was seen once or twice
		shots []shot
	}{
		{"alike", 3, []shot{short, short, {4, `{"aps":{"badge":0}}`, nil}, {5, `{"aps":{"badge":2147483647}}`, nil}}},
		{"two priorities", 4, []shot{short, power, power, power, short, power, short}},
		{"another payload", 2, []shot{short, {4, `{"aps":{"badge":3,"sound":"x"}}`, nil}, short, short}},
		{"badge too large", 2, []shot{short, {4, `{"aps":{"badge":2147483648}}`, nil}, short, short}},
		{"no body", 2, []shot{short, {4, "", nil}, short, short}},
		{"unknown device", 2, []shot{short, {99, short.body, nil}, short, short}},
		{"unregistered", 2, []shot{short, {6, short.body, nil}, short, short}},
		{"expired", 2, []shot{short, {7, short.body, nil}, short, short}},
		{"off line", 2, []shot{short, {8, short.body, nil}, short, short}},
		{"other topic", 2, []shot{short, {9, short.body, nil}, short, short}},
		{"not a token", 2, []shot{short, {1, short.body, []string{":path", "/3/device/xyz"}}, short, short}},
		{"bad header", 2, []shot{short, {2, short.body, []string{"apns-collapse-id", string(make([]byte, 65))}}, short, short}},
		{"no token", 0, []shot{short, {2, short.body, []string{"authorization", "-"}}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			fixture()
			var answers [2][]string
			var badges [2]map[int]uint32
			for i, fast := range []bool{false, true} {
				synctest.Test(t, func(t *testing.T) {
					answers[i], badges[i] = shoot(t, fast, test.lane, test.shots)
				})
			}
			if full, fast := fmt.Sprint(answers[0]), fmt.Sprint(answers[1]); full != fast {
				t.Errorf("answers: full %s, fast %s", full, fast)
			}
			if !maps.Equal(badges[0], badges[1]) {
				t.Errorf("badges: full %v, fast %v", badges[0], badges[1])
			}
		})
	}
}

func shoot(t *testing.T, fast bool, lane uint64, shots []shot) (answers []string, badges map[int]uint32) {
	s := newSim(t, func(c *Config) {
		c.Fast = fast
		c.Topics = append(c.Topics, "com.example.other")
		c.MaxDeviceInFlight, c.MaxDevicePerSecond = -1, -1
	})
	defer s.Close()
	for n := 2; n < 10; n++ {
		s.RegisterDevice(phone(n), topic, Production, Meta{})
	}
	s.Unregister(phone(6), time.Now())
	s.ExpireDevice(phone(7), time.Now())
	s.SetOnline(phone(8), false)
	s.RegisterDevice(phone(9), "com.example.other", Production, Meta{})
	c := trusted(t, s)
	defer c.close()
	plain := []string{"apns-id", "-", "apns-priority", "10"}
	warm := func(changes ...string) {
		var id uint32
		c.volley(func() { id = c.send(badgeOf3, changes...) })
		c.wait(id)
	}
	warm(plain...) // now its fields are in the compression table
	warm(append(plain, "apns-priority", "5")...)
	warm(plain...)
	var ids []uint32
	c.volley(func() {
		for _, x := range shots {
			changes := append([]string{"apns-id", "-", "apns-priority", "10", ":path", "/3/device/" + phone(x.device).Hex()}, x.changes...)
			ids = append(ids, c.send(x.body, changes...))
		}
	})
	for _, id := range ids {
		a := c.wait(id)
		answers = append(answers, c.outcome(a))
		if !validUUID(a.fields["apns-id"]) {
			t.Errorf("fast %t: apns-id %q", fast, a.fields["apns-id"])
		}
	}
	if got := s.Stats().FastLane; fast && got < lane {
		t.Errorf("the fast lane took %d, want at least %d", got, lane)
	}
	badges = make(map[int]uint32)
	for n := range 10 {
		if d, ok := s.Device(phone(n)); ok {
			badges[n] = d.Badge
		}
	}
	return answers, badges
}

// TestFastLaneCloses wants limits, expired tokens and faults to hold in fast
// mode, however many pushes went the short way before.
func TestFastLaneCloses(t *testing.T) {
	fixture()
	plain := []string{"apns-id", "-"}
	for _, test := range []struct {
		name   string
		before func(*Simulator)
		want   string
	}{
		{"scripted", func(s *Simulator) { s.NextFor(phone(1), Answer{Status: 410, Reason: apns.ReasonUnregistered}) }, "410 Unregistered"},
		{"fault", func(s *Simulator) { s.Inject(FaultTooMany, 1) }, "429 TooManyRequests"},
		{"expired", func(*Simulator) { time.Sleep(2 * time.Hour) }, "403 ExpiredProviderToken"},
		{"gone", func(s *Simulator) { s.Unregister(phone(1), time.Now()) }, "410 Unregistered"},
		{"removed", func(s *Simulator) { s.RemoveDevice(phone(1)) }, "400 BadDeviceToken"},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSim(t, func(c *Config) { c.Fast = true })
				defer s.Close()
				c := trusted(t, s)
				defer c.close()
				var last uint32
				for range 4 {
					c.volley(func() { last = c.send(badgeOf3, plain...) })
					c.wait(last)
				}
				if s.Stats().FastLane == 0 {
					t.Fatal("the fast lane took nothing")
				}
				test.before(s)
				c.volley(func() { last = c.send(badgeOf3, plain...) })
				if got := c.outcome(c.wait(last)); got != test.want {
					t.Errorf("got %s, want %s", got, test.want)
				}
			})
		})
	}
}

// TestShapes wants a shape to fit the same bytes with another path, until the
// compression table changes.
func TestShapes(t *testing.T) {
	path := append([]byte{4, 74}, "/3/device/"+phone(1).Hex()...)
	block := append(append([]byte{0x83, 0x87}, path...), 0xbe, 0xbf)
	var f fastLane
	learn := func() {
		f.look(1, block)
		f.learn(&stream{id: 1, req: request{pushType: "alert"}})
	}
	fits := func(block []byte) bool {
		s, token := f.match(block)
		return s != nil && bytes.Equal(token, phone(1).AppendRaw(nil))
	}
	learn()
	if !fits(block) {
		t.Error("a shape does not fit its own block")
	}
	f.look(3, []byte{0x83, 0x0f, 0x0d, 1, '3', 0x10, 1, 'a', 1, 'b'})
	if !fits(block) {
		t.Error("literals that are not indexed drop the shapes")
	}
	for name, change := range map[string][]byte{
		"an insertion":   {0x83, 0x40, 1, 'a', 1, 'b'},
		"a smaller size": {0x20},
	} {
		learn()
		f.look(3, change)
		if fits(block) {
			t.Errorf("the shapes outlive %s", name)
		}
	}
	learn()
	for i := range block {
		broken := bytes.Clone(block)
		broken[i] ^= 0x80
		if fits(broken) {
			t.Errorf("fits with byte %d changed", i)
		}
	}
}

// TestRoundTrip sees everything come late by the round trip, and streams count
// until their answers have arrived.
func TestRoundTrip(t *testing.T) {
	fixture()
	for _, fast := range []bool{false, true} {
		t.Run(fmt.Sprintf("fast=%t", fast), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const trip = 50 * time.Millisecond
				s := newSim(t, func(c *Config) { c.Fast, c.RoundTrip, c.StreamLimit, c.ResetOverLimit = fast, trip, 3, true })
				defer s.Close()
				start := time.Now()
				c := connect(t, s, nil)
				defer c.close()
				if c.event("settings 1") == "" || time.Since(start) != 2*trip {
					t.Errorf("SETTINGS after %v, want two round trips: %v", time.Since(start), 2*trip)
				}
				for range 4 {
					c.push(badgeOf3, "apns-id", "-")
				}
				if got := time.Since(start); got != 6*trip {
					t.Errorf("four pushes one by one ended after %v, want %v", got, 6*trip)
				}
				var ids []uint32
				send := func() { ids = append(ids, c.send(badgeOf3, "apns-id", "-")) }
				c.volley(send)
				time.Sleep(trip / 2)
				c.volley(func() { send(); send(); send() })
				time.Sleep(trip/2 - time.Millisecond)
				if c.peek(ids[0]).done {
					t.Error("answered before the round trip was over")
				}
				time.Sleep(2 * time.Millisecond)
				synctest.Wait()
				if !c.peek(ids[0]).done {
					t.Error("not answered after the round trip")
				}
				c.volley(send)
				for i, want := range []string{"200", "200", "200", "reset REFUSED_STREAM", "200"} {
					if got := c.outcome(c.wait(ids[i])); got != want {
						t.Errorf("push %d of five, three at a time: got %s, want %s", i+1, got, want)
					}
				}
				if got := clientFaultsOf(s); got != "over_limit:1" {
					t.Errorf("client faults: got %s, want one stream over the limit", got)
				}
			})
		})
	}
}
