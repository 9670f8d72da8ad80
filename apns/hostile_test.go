package apns_test

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"

	"badgerelay/apns"
)

// TestAnswersThatDoNotExist takes statuses and bodies that APNs never sends:
// each ends its push with a verdict that loses nothing for good.
func TestAnswersThatDoNotExist(t *testing.T) {
	huge := strings.Repeat(" ", 60_000)
	for _, test := range []struct {
		name, status, body string
		reason             apns.Reason
		verdict            apns.Verdict
	}{
		{"no content", "204", "", apns.ReasonForeignAnswer, apns.VerdictUnknown},
		{"redirect", "302", "<html>log in first</html>", apns.ReasonForeignAnswer, apns.VerdictUnknown},
		{"teapot", "418", "{}", apns.ReasonForeignAnswer, apns.VerdictUnknown},
		{"misdirected", "421", "", apns.ReasonForeignAnswer, apns.VerdictUnknown},
		{"unknown server error", "599", "{}", "HTTP599", apns.VerdictRetryLater},
		{"out of every class", "999", "{}", "HTTP999", apns.VerdictRetryLater},
		{"no body", "410", "", apns.ReasonForeignAnswer, apns.VerdictUnknown},
		{"broken JSON", "429", `{"reason":"TooMany`, apns.ReasonForeignAnswer, apns.VerdictUnknown},
		{"JSON of another shape", "503", `["ServiceUnavailable"]`, "HTTP503", apns.VerdictRetryLater},
		{"reason of another type", "503", `{"reason":7}`, "HTTP503", apns.VerdictRetryLater},
		{"nested without end", "503", strings.Repeat("[", 4000), "HTTP503", apns.VerdictRetryLater},
		{"not UTF-8", "503", "{\"reason\":\"\xff\xfe\"}", "HTTP503", apns.VerdictRetryLater},
		{"line breaks in the reason", "503", `{"reason":"a\r\nlevel=ERROR b"}`, "HTTP503", apns.VerdictRetryLater},
		{"huge reason", "503", `{"reason":"` + strings.Repeat("x", 4000) + `"}`, "HTTP503", apns.VerdictRetryLater},
		{"a proxy's page", "404", "<html>no such site</html>", apns.ReasonForeignAnswer, apns.VerdictUnknown},
		{"a proxy's login", "401", "", apns.ReasonForeignAnswer, apns.VerdictUnknown},
		{"a portal's page", "200", "<html>log in first</html>", apns.ReasonForeignAnswer, apns.VerdictUnknown},
		{"a proxy's JSON", "403", `{"reason":"policy: denied"}`, apns.ReasonForeignAnswer, apns.VerdictUnknown},
		{"a gateway's JSON", "400", `{"error":"bad request"}`, apns.ReasonForeignAnswer, apns.VerdictUnknown},
		{"a gateway's JSON", "410", `{"message":"gone"}`, apns.ReasonForeignAnswer, apns.VerdictUnknown},
		{"a dead device with another status", "404", `{"reason":"BadDeviceToken"}`, apns.ReasonForeignAnswer, apns.VerdictUnknown},
		{"a dead device with another status", "400", `{"reason":"Unregistered","timestamp":1}`, apns.ReasonForeignAnswer, apns.VerdictUnknown},
		{"a reason that is new", "410", `{"reason":"Retired"}`, "Retired", apns.VerdictUnknown},
		{"a reason that is new", "400", `{"reason":"Retired"}`, "Retired", apns.VerdictUnknown},
		{"timestamp out of range", "410", `{"reason":"Unregistered","timestamp":1e400}`, "Unregistered", apns.VerdictDeviceGone},
		{"huge body", "503", huge, "HTTP503", apns.VerdictRetryLater},
		{"huge body after the reason", "410", `{"reason":"Unregistered"}` + huge, "Unregistered", apns.VerdictDeviceGone},
	} {
		t.Run(test.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				p := newPeer(t, onlyFirst(func(c *peerConn) {
					c.settle(streams(10))
					c.ok(c.request())
					c.sendBody(c.request().id, test.status, test.body)
					c.serveOK()
				}))
				f := startPool(t, apns.Config{Dial: p.Dial, MaxConns: 1})
				f.put(0, 2)
				time.Sleep(time.Second)
				synctest.Wait()
				got := f.reset()
				if len(got) != 2 || got[1].Err == nil {
					t.Fatalf("results %v, want the refusal within a second", got)
				}
				if e := got[1].Err; e.Reason != test.reason || e.Verdict() != test.verdict || !e.Timestamp.IsZero() {
					t.Errorf("reason %q, verdict %v, timestamp %v, want %q, %v", e.Reason, e.Verdict(), e.Timestamp, test.reason, test.verdict)
				}
				f.put(2, 1)
				time.Sleep(5 * time.Second)
				synctest.Wait()
				if f.accepted() != 1 {
					t.Error("the next push did not go through")
				}
			})
		})
	}
}

// sendBody answers, and sends the body as DATA frames without an end.
func (c *peerConn) sendBody(id uint32, status, body string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	_ = c.WriteHeaders(http2.HeadersFrameParam{StreamID: id, EndHeaders: true, EndStream: body == "", BlockFragment: c.headers(":status", status)})
	for ; body != ""; body = body[min(len(body), 16000):] {
		_ = c.WriteData(id, len(body) <= 16000, []byte(body[:min(len(body), 16000)])) // the client may have had enough
	}
}

// TestFloods has a peer that sends without end and reads nothing: what the
// client owes it is bounded, and so is what it costs the client. It runs in
// real time, because the peer never rests, and fake time would stand still.
func TestFloods(t *testing.T) {
	for _, test := range []struct {
		name string
		act  func(c *peerConn, id uint32) error
	}{
		{"PING", func(c *peerConn, _ uint32) error { return c.WritePing(false, [8]byte{}) }},
		{"SETTINGS", func(c *peerConn, _ uint32) error { return c.WriteSettings(streams(10)) }},
		{"malformed frames for a closed stream", func(c *peerConn, id uint32) error { return c.WriteWindowUpdate(id, 0) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			ended := make(chan int, 1)
			p := newPeer(t, onlyFirst(func(c *peerConn) {
				c.settle(streams(10))
				c.ok(c.request())
				id := c.request().id
				sent := 0
				for test.act(c, id) == nil {
					sent++
				}
				ended <- sent
			}))
			f := startPool(t, apns.Config{Dial: p.Dial, MaxConns: 1, AnswerTimeout: 500 * time.Millisecond, PingTimeout: 500 * time.Millisecond,
				DrainTimeout: 500 * time.Millisecond})
			f.resend = true
			f.put(0, 1)
			f.put(1, 1)
			select {
			case sent := <-ended:
				t.Logf("the client hung up after %d frames", sent)
			case <-time.After(30 * time.Second):
				t.Fatal("the client still takes the flood")
			}
		})
	}
}

func totalAlloc() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.TotalAlloc
}

// TestBombsCostLittle lets header bombs strike again and again.
func TestBombsCostLittle(t *testing.T) {
	for name, bomb := range map[string]func(*peerConn, uint32){
		"HPACK": hpackBomb, "CONTINUATION": endlessBlock(""), "fragments": endlessBlock(strings.Repeat("\x88", 16384)),
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				const strikes = 20
				p := newPeer(t, func(c *peerConn) {
					c.settle(streams(10))
					c.ok(c.request())
					r := c.request()
					if r != nil && c.n <= strikes {
						go func() { // ends when the client has read it or hung up
							c.mu.Lock()
							defer c.mu.Unlock()
							bomb(c, r.id)
						}()
						// Only read, and answer nothing: whoever waits for mu stops the
						// bubble's clock, and with it the client's wait for its goodbye.
						for {
							if _, err := c.ReadFrame(); err != nil {
								return
							}
						}
					}
					if r != nil {
						c.ok(r)
					}
					c.serveOK()
				})
				f := startPool(t, apns.Config{Dial: p.Dial, MaxConns: 1})
				f.resend = true
				before := totalAlloc()
				start := time.Now()
				for i := range strikes {
					f.put(2*i, 2)
					time.Sleep(time.Minute)
				}
				synctest.Wait()
				if f.accepted() != 2*strikes {
					t.Errorf("%d of %d accepted within %v", f.accepted(), 2*strikes, time.Since(start))
				}
				if grown := totalAlloc() - before; grown > strikes*4<<20 {
					t.Errorf("%d MB allocated for %d bombs", grown>>20, strikes)
				}
			})
		})
	}
}

// TestWindowOverflowOfParkedBody has a stream's window grow beyond the maximum
// while its body waits for the connection's window (sections 6.9.1 and 6.9.2).
func TestWindowOverflowOfParkedBody(t *testing.T) {
	const nearlyAll = 1<<31 - 1 - 65535
	for name, act := range map[string]func(*peerConn, uint32){
		"by SETTINGS": func(c *peerConn, id uint32) {
			_ = c.WriteWindowUpdate(id, nearlyAll)
			_ = c.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 65535 + 100})
		},
		"by WINDOW_UPDATE": func(c *peerConn, id uint32) {
			_ = c.WriteWindowUpdate(id, nearlyAll)
			_ = c.WriteWindowUpdate(id, nearlyAll)
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				var first *peerConn
				p := newPeer(t, onlyFirst(func(c *peerConn) {
					first = c
					c.settle(streams(1000))
					for size := 0; size < 65535; {
						f, err := c.ReadFrame()
						if err != nil {
							return
						}
						if data, ok := f.(*http2.DataFrame); ok {
							size += len(data.Data())
						}
						if r := c.on(f); r != nil {
							c.ok(r)
						}
					}
					for id := range c.partial {
						go act(c, id) // ends when the client has read it or hung up
					}
					c.drain()
				}))
				f := startPool(t, apns.Config{Dial: p.Dial, MaxConns: 1})
				f.resend = true
				f.put(1000, 3000) // 22 bytes each
				time.Sleep(5 * time.Second)
				synctest.Wait()
				if first.goAway == nil || *first.goAway != http2.ErrCodeFlowControl {
					t.Errorf("the client's GOAWAY: %v, want FLOW_CONTROL_ERROR; reset %v", first.goAway, first.resets)
				}
				if f.accepted() != 3000 {
					t.Errorf("%d of 3000 accepted in the end", f.accepted())
				}
			})
		})
	}
}

// TestHostileForLong has every connection break the protocol after one
// accepted push, for five minutes: connects stay under the configured rate.
func TestHostileForLong(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPeer(t, func(c *peerConn) {
			c.settle(streams(10))
			if r := c.request(); r != nil {
				c.ok(r)
			}
			_ = c.WriteRawFrame(http2.FramePing, 0, 1, make([]byte, 8))
			c.drain()
		})
		f := startPool(t, apns.Config{Dial: p.Dial, ConnectsPerSecond: 2})
		f.resend = true
		f.put(0, 5_000)
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		if n := p.connections(); n > 2*300+1 {
			t.Errorf("%d connects in five minutes at two a second", n)
		}
		if s := f.pool.Stats(); s.LastError == nil || !strings.Contains(fmt.Sprint(s.LastError), "PROTOCOL_ERROR") {
			t.Errorf("the pool says %v", s.LastError)
		}
	})
}
