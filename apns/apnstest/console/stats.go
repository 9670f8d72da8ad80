package console

import (
	"net/http"
	"strconv"
	"time"

	"badgerelay/apns/apnstest"
)

// stats is what the simulator counted, with what the page sums up.
type stats struct {
	Now               time.Time      `json:"now"`
	Pushes            uint64         `json:"pushes"`             // answered 200
	LastPush          *time.Time     `json:"lastPush,omitempty"` // the last one a device showed
	ClientFaults      map[string]int `json:"clientFaults"`       // what clients did that Apple would hold against them
	ClientFaultsTotal int            `json:"clientFaultsTotal"`

	ClientFaultDevices  map[string]string `json:"clientFaultDevices"`  // the token of the device that each concerned last, where it concerns one
	ClientFaultMeanings map[string]string `json:"clientFaultMeanings"` // of each name in client_faults
	Scripted            int               `json:"scripted"`            // answers not used yet
	apnstest.Stats
}

func (c *console) stats() stats {
	st := stats{
		Now: time.Now(), LastPush: some(c.sim.LastPush()), Scripted: c.sim.Scripted(), Stats: c.sim.Stats(),
		ClientFaults: c.sim.ClientFaults(), ClientFaultDevices: map[string]string{}, ClientFaultMeanings: apnstest.ClientFaultMeanings(),
	}
	for fault, device := range c.sim.LastFaultDevices() {
		st.ClientFaultDevices[fault] = device.Hex()
	}
	st.Pushes = st.Accepted
	for _, n := range st.ClientFaults {
		st.ClientFaultsTotal += n
	}
	return st
}

// same reports whether the page would show the same for both.
func (st stats) same(o stats) bool {
	return st.Devices == o.Devices && st.Pushes == o.Pushes && st.ClientFaultsTotal == o.ClientFaultsTotal && st.Connections == o.Connections
}

func (c *console) getStats(w http.ResponseWriter, _ *http.Request) {
	answer(w, http.StatusOK, c.stats())
}

// Bounds of what history returns at once, ours.
const (
	defaultHistory = 100
	maxHistory     = 10_000
)

// record is one request in the history.
type record struct {
	Time       time.Time  `json:"time"`
	AnsweredAt *time.Time `json:"answeredAt,omitempty"`
	Connection uint64     `json:"connection"`
	Stream     uint32     `json:"stream"`
	Token      string     `json:"token,omitempty"`
	ID         string     `json:"id,omitempty"`
	Topic      string     `json:"topic,omitempty"`
	PushType   string     `json:"pushType,omitempty"`
	CollapseID string     `json:"collapseId,omitempty"`
	Priority   int        `json:"priority"`
	Expiration int64      `json:"expiration"` // Unix seconds; -1: absent
	Badge      int64      `json:"badge"`      // -1: the payload carries none
	Payload    string     `json:"payload,omitempty"`
	KeyID      string     `json:"keyId,omitempty"`
	Status     int        `json:"status"` // 0: no answer was sent
	Reason     string     `json:"reason,omitempty"`
	Rule       string     `json:"rule,omitempty"`
	Note       string     `json:"note,omitempty"`
	Fault      string     `json:"fault,omitempty"`
}

func showRecord(r apnstest.Record) record {
	v := record{
		Time: r.Time, AnsweredAt: some(r.AnsweredAt), Connection: r.Connection, Stream: r.Stream,
		ID: r.ID, Topic: r.Topic, PushType: r.PushType, CollapseID: r.CollapseID, Priority: r.Priority,
		Expiration: r.Expiration, Badge: r.Badge, Payload: r.Payload, KeyID: r.KeyID,
		Status: r.Status, Reason: string(r.Reason), Rule: string(r.Rule), Note: r.Note,
	}
	if !r.Device.IsZero() {
		v.Token = r.Device.Hex()
	}
	if r.Fault != apnstest.NoFault {
		v.Fault = r.Fault.String()
	}
	return v
}

func (c *console) history(w http.ResponseWriter, r *http.Request) {
	limit := defaultHistory
	if s := r.FormValue("limit"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 || n > maxHistory {
			refuseErr(w, problem{"limit", "range", "has to be a whole number from 1 to " + strconv.Itoa(maxHistory)})
			return
		}
		limit = n
	}
	all := c.sim.History()
	newest := all[max(0, len(all)-limit):]
	out := make([]record, len(newest))
	for i, rec := range newest {
		out[i] = showRecord(rec)
	}
	answer(w, http.StatusOK, map[string]any{"total": len(all), "requests": out})
}

func (c *console) clearHistory(w http.ResponseWriter, _ *http.Request) {
	c.sim.ClearHistory()
	w.WriteHeader(http.StatusNoContent)
}
