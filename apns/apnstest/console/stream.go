package console

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"time"

	"badgerelay/apns"
	"badgerelay/apns/apnstest"
)

const (
	// coalesce is the least time between two writes to one page: well below
	// what an eye tells apart from "at once", well above what a browser needs
	// to draw.
	coalesce = 100 * time.Millisecond
	// perEvent bounds the devices of one event; the rest waits for the next.
	perEvent = 500
	// quiet is the longest silence on a stream; the page takes three for a
	// lost connection.
	quiet = 5 * time.Second
	// writeTimeout is how long a page may leave its stream unread.
	writeTimeout = 10 * time.Second
	// maxStreams bounds the pages open at once.
	maxStreams = 32
)

// dirty is the set of devices that changed and were not yet written to one
// client. Its size is bounded by the number of devices, however fast pushes
// arrive. Safe for concurrent use.
type dirty struct {
	mu     sync.Mutex
	tokens map[apns.DeviceToken]struct{}
	wake   chan struct{} // one slot: there is something in tokens
}

func newDirty() *dirty {
	return &dirty{tokens: map[apns.DeviceToken]struct{}{}, wake: make(chan struct{}, 1)}
}

func (d *dirty) mark(t apns.DeviceToken) {
	d.mu.Lock()
	d.tokens[t] = struct{}{}
	d.mu.Unlock()
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// take removes up to perEvent devices.
func (d *dirty) take() []apns.DeviceToken {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []apns.DeviceToken
	for t := range d.tokens {
		if len(out) == perEvent {
			select {
			case d.wake <- struct{}{}:
			default:
			}
			break
		}
		delete(d.tokens, t)
		out = append(out, t)
	}
	return out
}

// events writes what happens to the devices until the client leaves.
func (c *console) events(w http.ResponseWriter, r *http.Request) {
	if c.streams.Add(1) > maxStreams {
		c.streams.Add(-1)
		refuse(w, http.StatusServiceUnavailable, problem{"", "max_streams", fmt.Sprintf("at most %d pages at once", maxStreams)})
		return
	}
	defer c.streams.Add(-1)
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	s := &stream{console: c, w: w, control: http.NewResponseController(w)}
	if err := s.control.SetReadDeadline(time.Time{}); err != nil { // a server's ReadTimeout would end the stream
		refuse(w, http.StatusInternalServerError, problem{"", "stream", "this server can't stream"})
		return
	}
	changed := newDirty()
	defer c.sim.Watch(func(d apnstest.Device) { changed.mark(d.Token) })()
	if s.everything() == nil {
		s.follow(r.Context(), changed)
	}
}

// stream is one client of events. Its handler's goroutine owns it.
type stream struct {
	*console
	w       http.ResponseWriter
	control *http.ResponseController
}

// everything tells the client all there is, in pieces.
func (s *stream) everything() error {
	if err := s.send("hello", struct{}{}); err != nil {
		return err
	}
	all := s.sim.Devices()
	if err := s.send("stats", s.stats()); err != nil {
		return err
	}
	for len(all) > 0 {
		n := min(len(all), perEvent)
		batch := make([]device, n)
		for i := range batch {
			batch[i] = show(all[i])
		}
		all = all[n:]
		if err := s.send("devices", batch); err != nil {
			return err
		}
	}
	return s.send("synced", struct{}{})
}

// follow tells the client what changes, until it leaves. A device is read
// when it is written, so that what a page shows is the newest there is.
func (s *stream) follow(ctx context.Context, changed *dirty) {
	pace := time.NewTicker(coalesce)
	defer pace.Stop()
	said := time.Now()
	last := s.stats()
	for {
		select {
		case <-ctx.Done():
			return
		case at := <-pace.C:
			var wrote bool
			select {
			case <-changed.wake:
				wrote = true
				if s.changes(changed.take()) != nil {
					return
				}
			default:
			}
			if st := s.stats(); wrote || !st.same(last) || at.Sub(said) >= quiet {
				if s.send("stats", st) != nil {
					return
				}
				said, last = at, st
			}
		}
	}
}

func (s *stream) changes(tokens []apns.DeviceToken) error {
	var gone []string
	var now []device
	for _, t := range tokens {
		if d, ok := s.sim.Device(t); ok {
			now = append(now, show(d))
		} else {
			gone = append(gone, t.Hex())
		}
	}
	if len(gone) > 0 {
		if err := s.send("gone", gone); err != nil {
			return err
		}
	}
	if len(now) == 0 {
		return nil
	}
	return s.send("devices", now)
}

// send writes one event. JSON has no line breaks, so one data line does.
func (s *stream) send(event string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if err := s.control.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(s.w, "event: %s\ndata: %s\n\n", event, data); err != nil {
		return err
	}
	return s.control.Flush()
}
