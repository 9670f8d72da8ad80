package apnstest

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
)

// TestRequestFaults injects each fault of requests once.
func TestRequestFaults(t *testing.T) {
	tests := []struct {
		fault    Fault
		want     string // status and reason
		accepted uint64 // by the device, the harness's first push included
		check    func(a answer) bool
	}{
		{FaultSplitAnswer, "200", 2, func(a answer) bool { return a.done }},
		{FaultUnknownFrames, "200", 2, nil},
		{FaultInformational, "200", 2, func(a answer) bool { return a.headers == 2 }},
		{FaultMissingID, "200", 2, func(a answer) bool { return a.fields["apns-id"] == "" }},
		{FaultHugeHeaders, "200", 2, func(a answer) bool { return len(a.fields) > 60 }},
		{FaultRefuseStream, "reset REFUSED_STREAM", 1, nil},
		{FaultResetStream, "reset INTERNAL_ERROR", 2, func(a answer) bool { return a.status == "200" }},
		{FaultAnswerReset, "reset CANCEL", 2, nil},
		{FaultOldTimestamp, "410 Unregistered", 1, nil},
		{FaultDuplicateGone, "410 " + strings.Repeat(`{"reason":"Unregistered","timestamp":946681200000}`, 2), 1, nil},
		{FaultServerError, "500 InternalServerError", 1, nil},
		{FaultUnavailable, "503 ServiceUnavailable", 1, nil},
		{FaultShuttingDown, "503 Shutdown", 1, nil},
		{FaultTooMany, "429 TooManyRequests", 1, nil},
		{FaultTokenExpired, "403 ExpiredProviderToken", 1, nil},
	}
	for _, tt := range tests {
		t.Run(tt.fault.String(), func(t *testing.T) {
			bubble(t, nil, func(t *testing.T, s *Simulator, c *client) {
				s.Inject(tt.fault, 1)
				id := c.send(badgeOf3)
				synctest.Wait()
				if got := c.outcome(c.wait(id)); got != tt.want {
					t.Errorf("answer: got %q, want %q", got, tt.want)
				}
				if a := c.peek(id); tt.check != nil && !tt.check(a) {
					t.Errorf("answer: got %+v", a)
				}
				if d, _ := s.Device(phone(1)); d.Accepted != tt.accepted {
					t.Errorf("device: got %d pushes, want %d", d.Accepted, tt.accepted)
				}
				h := s.History()
				if got := h[len(h)-1].Fault; got != tt.fault {
					t.Errorf("history: got fault %v", got)
				}
				if got := s.Stats().Injected[tt.fault.String()]; got != 1 {
					t.Errorf("injected: got %d, want 1", got)
				}
			})
		})
	}
}

func TestLate(t *testing.T) {
	bubble(t, nil, func(t *testing.T, s *Simulator, c *client) {
		s.Inject(FaultLate, 1)
		start := time.Now()
		if got := c.push(badgeOf3); got != "200" || time.Since(start) != 3*time.Second {
			t.Errorf("got %s after %v, want 200 after 3s", got, time.Since(start))
		}
	})
}

func TestStallStream(t *testing.T) {
	bubble(t, nil, func(t *testing.T, s *Simulator, c *client) {
		s.Inject(FaultStallStream, 1)
		stalled := c.send(`{"aps":{"badge":9}}`)
		time.Sleep(time.Hour)
		if a := c.peek(stalled); a.status != "" || a.done {
			t.Errorf("got %+v, want no answer", a)
		}
		if d, _ := s.Device(phone(1)); d.Badge != 9 {
			t.Errorf("badge: got %d, want 9: the push was processed", d.Badge)
		}
	})
}

func TestBurst(t *testing.T) {
	bubble(t, nil, func(t *testing.T, s *Simulator, c *client) {
		if err := s.SetFaults(Faults{Rates: map[Fault]float64{FaultUnavailable: 1}, Burst: 3}); err != nil {
			t.Fatal(err)
		}
		c.push(badgeOf3)
		if err := s.SetFaults(Faults{}); err != nil {
			t.Fatal(err)
		}
		for i, want := range []string{"503 ServiceUnavailable", "503 ServiceUnavailable", "200"} {
			if got := c.push(badgeOf3); got != want {
				t.Errorf("push %d of the burst: got %s, want %s", i+2, got, want)
			}
		}
		if got := s.ClientFaults()[ClientEarly5xx]; got != 3 {
			t.Errorf("sent again too soon: counted %d, want 3", got)
		}
	})
}

func TestServerErrorWait(t *testing.T) {
	bubble(t, func(c *Config) { c.ServerErrorWait = 2 * time.Second }, func(t *testing.T, s *Simulator, c *client) {
		s.Inject(FaultUnavailable, 1)
		c.push(badgeOf3)
		for i, early := range []int{1, 1} {
			time.Sleep(time.Duration(i) * 2 * time.Second) // in the bubble
			c.push(badgeOf3)
			if got := s.ClientFaults()[ClientEarly5xx]; got != early {
				t.Errorf("%d s after the 503: counted %d, want %d", 2*i, got, early)
			}
		}
		s.Inject(FaultUnavailable, 1)
		c.push(badgeOf3)
		s.RegisterDevice(phone(1), topic, Production, Meta{})
		c.push(badgeOf3)
		if got := s.ClientFaults()[ClientEarly5xx]; got != 1 {
			t.Errorf("after the device was registered anew: counted %d, want 1 as before", got)
		}
	})
}

// TestServerErrorUnheard has a 5xx that never reaches the client: it may send
// the same again at once on another connection.
func TestServerErrorUnheard(t *testing.T) {
	for _, fault := range []Fault{FaultHalfClose, FaultReset, FaultStallStream} {
		t.Run(fault.String(), func(t *testing.T) {
			bubble(t, nil, func(t *testing.T, s *Simulator, c *client) {
				const body = `{"aps":{"badge":4}}`
				s.Trigger(FaultWedge)
				if fault != FaultReset {
					s.Inject(fault, 1)
				}
				c.send(body)
				synctest.Wait()
				if fault == FaultReset {
					s.Trigger(fault)
				}
				if got := connect(t, s, nil).push(body); got != "200" {
					t.Fatalf("got %s, want 200", got)
				}
				if n := s.ClientFaults()[ClientEarly5xx]; n != 0 {
					t.Errorf("counted %d, want none", n)
				}
			})
		})
	}
}

// TestRegisteredWhileAnAnswerIsUnderWay has a device come back between a push to
// it and the answer that it is gone: later pushes to it are none to a dead device.
func TestRegisteredWhileAnAnswerIsUnderWay(t *testing.T) {
	bubble(t, func(c *Config) { c.Faults.Latency.Min = time.Second }, func(t *testing.T, s *Simulator, c *client) {
		c.push(badgeOf3)
		s.Unregister(phone(1), time.Now())
		gone := c.send(badgeOf3)
		time.Sleep(time.Second / 2)
		s.RegisterDevice(phone(1), topic, Production, Meta{})
		if a := c.wait(gone); a.status != "410" {
			t.Errorf("got %s, want 410", a.status)
		}
		time.Sleep(2 * deadGrace)
		if got := c.push(badgeOf3); got != "200" {
			t.Errorf("got %s, want 200", got)
		}
		if n := s.ClientFaults()[ClientDeadDevice]; n != 0 {
			t.Errorf("counted %d pushes to a dead device, want none", n)
		}
	})
}

// TestGoAwayUnheard has a socket stall before GOAWAY: the client can't know that
// it is to open nothing more.
func TestGoAwayUnheard(t *testing.T) {
	bubble(t, nil, func(t *testing.T, s *Simulator, c *client) {
		c.push(badgeOf3)
		s.Trigger(FaultStallSocket)
		s.Trigger(FaultGoAway)
		time.Sleep(2 * time.Second)
		c.send(badgeOf3)
		synctest.Wait()
		if n := s.ClientFaults()[ClientAfterGoAway]; n != 0 {
			t.Errorf("counted %d streams after GOAWAY, want none", n)
		}
	})
}

func TestRepeatedBadges(t *testing.T) {
	bubble(t, nil, func(t *testing.T, s *Simulator, c *client) {
		before := s.Stats().Repeated
		for _, badge := range []int{7, 7, 8, 7} {
			c.push(fmt.Sprintf(`{"aps":{"badge":%d}}`, badge))
		}
		if got := s.Stats().Repeated - before; got != 1 {
			t.Errorf("%d of 7, 7, 8, 7 were shown already, want 1", got)
		}
	})
}

// TestGoAways triggers each goodbye while four pushes are in flight.
func TestGoAways(t *testing.T) {
	tests := []struct {
		fault    Fault
		want     string
		answered int
	}{
		{FaultGoAway, `goaway 0 9 {"reason":"Shutdown"}`, 4},
		{FaultGoAwayEarly, `goaway 0 5 {"reason":"Shutdown"}`, 2},
		{FaultGoAwayTwice, `goaway 0 2147483647 {"reason":"Shutdown"}`, 4},
		{FaultGoAwayTruncated, `goaway 2 9 {"reason":"Internal`, 4},
		{FaultGoAwayText, "goaway 7 9 " + overLimitText, 0},
	}
	for _, tt := range tests {
		t.Run(tt.fault.String(), func(t *testing.T) {
			bubble(t, func(c *Config) { c.MaxDeviceInFlight = -1 }, func(t *testing.T, s *Simulator, c *client) {
				if err := s.SetFaults(Faults{Latency: Latency{Min: time.Second}}); err != nil {
					t.Fatal(err)
				}
				for range 4 {
					c.send(badgeOf3)
				}
				synctest.Wait()
				s.Trigger(tt.fault)
				synctest.Wait()
				c.send(badgeOf3) // above the last id: ignored
				if got := c.event("goaway"); got != tt.want {
					t.Errorf("got %q, want %q", got, tt.want)
				}
				<-c.ended
				answered := 0
				for id := uint32(3); id < c.next; id += 2 {
					if c.peek(id).done {
						answered++
					}
				}
				if answered != tt.answered {
					t.Errorf("answered: got %d, want %d", answered, tt.answered)
				}
				if d, _ := s.Device(phone(1)); int(d.Accepted) != 1+tt.answered {
					t.Errorf("processed: got %d, want %d and the first", d.Accepted, tt.answered)
				}
			})
		})
	}
}

// TestConnectionFaults triggers what does not say goodbye.
func TestConnectionFaults(t *testing.T) {
	t.Run("wedge", func(t *testing.T) {
		bubble(t, nil, func(t *testing.T, s *Simulator, c *client) {
			s.Trigger(FaultWedge)
			for range 2 {
				if got := c.push(badgeOf3); got != "500 InternalServerError" {
					t.Errorf("got %s, want 500", got)
				}
			}
		})
	})
	t.Run("reset", func(t *testing.T) {
		bubble(t, nil, func(t *testing.T, s *Simulator, c *client) {
			s.Inject(FaultReset, 1)
			c.send(badgeOf3)
			<-c.ended
		})
	})
	t.Run("half_close", func(t *testing.T) {
		bubble(t, nil, func(t *testing.T, s *Simulator, c *client) {
			s.Trigger(FaultHalfClose)
			<-c.ended
			c.send(badgeOf3)
			synctest.Wait()
			if got := s.Stats().Connections; got != 1 {
				t.Errorf("connections: got %d, want 1, still read", got)
			}
		})
	})
	t.Run("stall_socket", func(t *testing.T) {
		bubble(t, nil, func(t *testing.T, s *Simulator, c *client) {
			s.Inject(FaultStallSocket, 1)
			c.send(badgeOf3)
			time.Sleep(time.Hour)
			select {
			case <-c.ended:
				t.Error("the connection ended, want it open and silent")
			default:
			}
			if a := c.peek(3); a.status != "" || a.done {
				t.Errorf("got %+v, want no answer", a)
			}
		})
	})
	t.Run("ignore_ping", func(t *testing.T) {
		bubble(t, nil, func(t *testing.T, s *Simulator, c *client) {
			s.Trigger(FaultIgnorePing)
			c.write(c.framer.WritePing(false, [8]byte{1}))
			time.Sleep(time.Hour)
			for _, e := range c.all() {
				if strings.HasPrefix(e, "ping") {
					t.Errorf("got %s, want no answer", e)
				}
			}
		})
	})
	t.Run("ping_flood", func(t *testing.T) {
		bubble(t, nil, func(t *testing.T, s *Simulator, c *client) {
			s.Trigger(FaultPingFlood)
			synctest.Wait()
			n := 0
			for _, e := range c.all() {
				if e == "ping false" {
					n++
				}
			}
			if n != floodPings {
				t.Errorf("got %d PINGs, want %d", n, floodPings)
			}
		})
	})
	t.Run("limit_zero", func(t *testing.T) {
		bubble(t, nil, func(t *testing.T, s *Simulator, c *client) {
			s.Trigger(FaultLimitZero)
			synctest.Wait()
			if got := c.push(badgeOf3); got != "reset REFUSED_STREAM" {
				t.Errorf("got %s, want the stream refused", got)
			}
			time.Sleep(2 * time.Second)
			synctest.Wait()
			if got := c.push(badgeOf3); got != "200" {
				t.Errorf("later: got %s, want 200", got)
			}
		})
	})
	t.Run("starve_window", func(t *testing.T) {
		bubble(t, func(c *Config) { c.MaxDevicePerSecond = -1 }, func(t *testing.T, s *Simulator, c *client) {
			s.Trigger(FaultStarveWindow)
			for range 15 {
				c.push(pad(4000))
			}
			synctest.Wait()
			window := func() (n int) {
				for _, e := range c.all() {
					if strings.HasPrefix(e, "window") {
						n++
					}
				}
				return n
			}
			if got := window(); got != 0 {
				t.Errorf("starved: got %d WINDOW_UPDATEs, want none", got)
			}
			time.Sleep(2 * time.Second)
			synctest.Wait()
			if got := window(); got != 1 {
				t.Errorf("later: got %d WINDOW_UPDATEs, want 1", got)
			}
		})
	})
}

// TestConnectFaults strikes connections while they open.
func TestConnectFaults(t *testing.T) {
	fixture()
	for _, fault := range []Fault{FaultRefuseConnect, FaultExpiredCertificate, FaultWrongName} {
		synctest.Test(t, func(t *testing.T) {
			s := newSim(t, nil)
			defer s.Close()
			s.Inject(fault, 1)
			if _, err := tryConnect(t, s, nil); err == nil {
				t.Errorf("%v: connected, want an error", fault)
			}
			trusted(t, s).close()
		})
	}
	for _, fault := range []Fault{FaultSlowTLS, FaultLateSettings} {
		synctest.Test(t, func(t *testing.T) {
			s := newSim(t, nil)
			defer s.Close()
			s.Inject(fault, 1)
			start := time.Now()
			c := connect(t, s, func(*tls.Config) {})
			defer c.close()
			if c.event("settings") == "" || time.Since(start) != 2*time.Second {
				t.Errorf("%v: got SETTINGS after %v, want 2s", fault, time.Since(start))
			}
		})
	}
}

// TestSeedRepeats draws the same faults twice from one seed.
func TestSeedRepeats(t *testing.T) {
	fixture()
	run := func() (out string) {
		synctest.Test(t, func(t *testing.T) {
			s := newSim(t, func(c *Config) {
				c.MaxDevicePerSecond = -1
				c.Faults.Rates = map[Fault]float64{FaultTooMany: 0.2, FaultRefuseStream: 0.3}
				c.ErrorSlowdown = -1
			})
			defer s.Close()
			c := connect(t, s, nil)
			defer c.close()
			for range 50 {
				out += c.push(badgeOf3) + "\n"
			}
		})
		return out
	}
	first, second := run(), run()
	if first != second {
		t.Errorf("two runs with one seed differ:\n%s\n%s", first, second)
	}
	if !strings.Contains(first, "429") || !strings.Contains(first, "REFUSED") || !strings.Contains(first, "200") {
		t.Errorf("want all kinds of answers, got:\n%s", first)
	}
}

func TestFaultNames(t *testing.T) {
	for _, f := range append(AllFaults(), NoFault) {
		got, err := ParseFault(f.String())
		if got != f || err != nil {
			t.Errorf("%v: got %v, %v", f, got, err)
		}
		kinds := 0
		for _, is := range []bool{f.OfRequest(), f.OfConnection(), f.OfConnect()} {
			if is {
				kinds++
			}
		}
		if f != NoFault && kinds != 1 {
			t.Errorf("%v: is of %d kinds, want 1", f, kinds)
		}
	}
	if _, err := ParseFault("nonsense"); err == nil {
		t.Error("unknown name: got no error")
	}
	low := LowRate()
	if err := low.Validate(); err != nil {
		t.Errorf("low rate: %v", err)
	}
	text, err := json.Marshal(low)
	if err != nil {
		t.Fatal(err)
	}
	var back Faults
	if err := json.Unmarshal(text, &back); err != nil || len(back.Rates) != len(low.Rates) {
		t.Errorf("through JSON: got %d rates, %v; want %d", len(back.Rates), err, len(low.Rates))
	}
	bad := Faults{Rates: map[Fault]float64{FaultLate: 2, FaultReset: -1}, Hold: -1}
	if err := bad.Validate(); err == nil || strings.Count(err.Error(), "\n") < 2 {
		t.Errorf("bad faults: got %v, want every problem", err)
	}
}

// TestEarlyAnswer answers a payload that is too large before its end.
func TestEarlyAnswer(t *testing.T) {
	bubble(t, nil, func(t *testing.T, s *Simulator, c *client) {
		id := c.open(false)
		c.write(c.framer.WriteData(id, false, make([]byte, 4097)))
		synctest.Wait()
		a := c.peek(id)
		if a.status != "413" || !a.isReset || a.reset != http2.ErrCodeNo {
			t.Errorf("got %+v, want 413, then RST_STREAM(NO_ERROR)", a)
		}
		c.write(c.framer.WriteData(id, true, make([]byte, 10)))
		if got := c.push(badgeOf3); got != "200" {
			t.Errorf("the next push: got %s, want 200", got)
		}
	})
}

// TestA5xxThatIsCutOffIsNotHeard has a wedged connection's 500 fall to another
// fault: who never heard of it may send the payload again at once.
func TestA5xxThatIsCutOffIsNotHeard(t *testing.T) {
	for _, fault := range []Fault{FaultAnswerReset, FaultResetStream, NoFault} {
		bubble(t, nil, func(t *testing.T, s *Simulator, c *client) {
			s.Trigger(FaultWedge)
			if fault != NoFault {
				s.Inject(fault, 1)
			}
			first := c.push(badgeOf3)
			other := connect(t, s, nil)
			defer other.close()
			if got := other.push(badgeOf3); got != "200" {
				t.Errorf("%v: the same payload: got %s, want 200", fault, got)
			}
			want := 0
			if fault == NoFault {
				want = 1
			}
			if got := s.ClientFaults()[ClientEarly5xx]; got != want {
				t.Errorf("%v, answered %s: %d early payloads counted, want %d", fault, first, got, want)
			}
		})
	}
}
