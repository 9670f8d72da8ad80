package apnstest

import (
	"sync"
	"time"

	"badgerelay/apns"
)

// Record is one request and how it was answered.
type Record struct {
	Time       time.Time // the request was complete
	AnsweredAt time.Time // zero: no answer was sent
	Connection uint64    // the connection, counted from 1
	Stream     uint32
	Device     apns.DeviceToken // zero: none, or not well formed
	ID         string           // apns-id, as sent or as made by the simulator
	Topic      string
	PushType   string
	CollapseID string
	Priority   int   // 10 when absent
	Expiration int64 // Unix seconds; -1: absent
	Badge      int64 // -1: the payload carries none
	Payload    string
	KeyID      string // of the provider token; empty with a certificate
	Status     int    // 0: no answer was sent
	Reason     apns.Reason
	Rule       Rule   // that the refusal rests on
	Note       string // what else Apple would do, or what was wrong in detail
	Fault      Fault  // injected into this request, if any
}

// history is the last requests, in a ring. Safe for concurrent use.
type history struct {
	mu    sync.Mutex
	ring  []Record
	total uint64 // ever added; the next one's place is total % cap
	limit int
}

func (h *history) add(r Record) {
	if h.limit == 0 {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.ring) < h.limit {
		h.ring = append(h.ring, r)
	} else {
		h.ring[h.total%uint64(h.limit)] = r
	}
	h.total++
}

// History returns the remembered requests in the order of their answers,
// oldest first. Requests that were never answered are included once the
// simulator has given them up.
func (s *Simulator) History() []Record {
	h := &s.history
	h.mu.Lock()
	defer h.mu.Unlock()
	out := make([]Record, 0, len(h.ring))
	if len(h.ring) < h.limit {
		return append(out, h.ring...)
	}
	at := 0
	if h.limit > 0 {
		at = int(h.total % uint64(h.limit))
	}
	return append(append(out, h.ring[at:]...), h.ring[:at]...)
}

// ClearHistory forgets the requests.
func (s *Simulator) ClearHistory() {
	s.history.mu.Lock()
	s.history.ring, s.history.total = nil, 0
	s.history.mu.Unlock()
}
