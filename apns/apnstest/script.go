package apnstest

import (
	"time"

	"badgerelay/apns"
)

// Answer is a scripted answer to one request. It takes the place of what the
// rules would say; the zero value lets the rules decide.
type Answer struct {
	Status     int           `json:"status,omitempty"` // 0: as the rules say
	Reason     apns.Reason   `json:"reason,omitempty"`
	Timestamp  time.Time     `json:"timestamp,omitzero"`   // sent if not zero
	RetryAfter time.Duration `json:"retryAfter,omitempty"` // sent in whole seconds if not zero
	Body       string        `json:"body,omitempty"`       // instead of the JSON object with reason and timestamp
	Delay      time.Duration `json:"delay,omitempty"`      // added to the latency
	Fault      Fault         `json:"fault,omitempty"`      // strikes with this request
}

// Next scripts the answers to the next requests, whoever sends them and to
// whichever device, in the order they arrive, after those already scripted.
// Answers scripted for a device go first.
func (s *Simulator) Next(answers ...Answer) {
	s.scriptMu.Lock()
	s.script = append(s.script, answers...)
	s.countScript()
	s.scriptMu.Unlock()
}

// NextFor scripts the answers to the next requests to one device.
func (s *Simulator) NextFor(device apns.DeviceToken, answers ...Answer) {
	s.scriptMu.Lock()
	s.deviceScripts[device] = append(s.deviceScripts[device], answers...)
	s.countScript()
	s.scriptMu.Unlock()
}

// ClearScripts forgets all scripted answers and injected faults that have not
// been used.
func (s *Simulator) ClearScripts() {
	s.scriptMu.Lock()
	s.script, s.connectScript = nil, nil
	clear(s.deviceScripts)
	s.countScript()
	s.scriptMu.Unlock()
}

// Scripted returns the number of scripted answers and injected faults that
// have not been used.
func (s *Simulator) Scripted() int { return int(s.scripted.Load()) }

// countScript renews the count that spares requests the lock. scriptMu must be
// held.
func (s *Simulator) countScript() {
	n := len(s.script) + len(s.connectScript)
	for _, a := range s.deviceScripts {
		n += len(a)
	}
	s.scripted.Store(int64(n))
}

// nextAnswer returns the scripted answer to a request, if there is one.
func (s *Simulator) nextAnswer(device apns.DeviceToken) Answer {
	if s.scripted.Load() == 0 {
		return Answer{}
	}
	s.scriptMu.Lock()
	defer s.scriptMu.Unlock()
	defer s.countScript()
	if list := s.deviceScripts[device]; len(list) > 0 && !device.IsZero() {
		if len(list) == 1 {
			delete(s.deviceScripts, device)
		} else {
			s.deviceScripts[device] = list[1:]
		}
		return list[0]
	}
	if len(s.script) == 0 {
		return Answer{}
	}
	a := s.script[0]
	s.script = s.script[1:]
	return a
}
