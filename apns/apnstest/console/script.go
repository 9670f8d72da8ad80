package console

import (
	"fmt"
	"net/http"
	"time"

	"badgerelay/apns"
	"badgerelay/apns/apnstest"
)

// maxScripted bounds the answers that wait to be used, ours.
const maxScripted = 10_000

// duration is written as Go writes it, such as "1.5s".
type duration time.Duration

func (d duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

func (d *duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf("%q is not a duration such as 500ms or 2s", text)
	}
	*d = duration(v)
	return nil
}

// script is what POST /api/script takes. Without a token the answers go to
// whichever requests come next.
type script struct {
	Token   string           `json:"token"`
	Answers []scriptedAnswer `json:"answers"`
}

type scriptedAnswer struct {
	Status     int         `json:"status"` // 0: as the rules say
	Reason     apns.Reason `json:"reason"`
	Timestamp  time.Time   `json:"timestamp"`
	RetryAfter duration    `json:"retryAfter"`
	Body       string      `json:"body"` // instead of the JSON object with reason and timestamp
	Delay      duration    `json:"delay"`
	Fault      string      `json:"fault"` // one of the names that GET /api/faults lists
}

func (a scriptedAnswer) check(hasToken bool) (apnstest.Answer, error) {
	out := apnstest.Answer{
		Status: a.Status, Reason: a.Reason, Timestamp: a.Timestamp, Body: a.Body,
		RetryAfter: time.Duration(a.RetryAfter), Delay: time.Duration(a.Delay),
	}
	if a.Status != 0 && (a.Status < 200 || a.Status > 599) {
		return out, problem{"status", "range", "has to be 200 to 599, or 0 for what the rules say"}
	}
	if a.Delay < 0 || a.RetryAfter < 0 {
		return out, problem{"delay", "range", "delay and retryAfter can't be negative"}
	}
	if a.Fault == "" {
		return out, nil
	}
	fault, err := apnstest.ParseFault(a.Fault)
	if err != nil {
		return out, problem{"fault", "enum", "there is no such fault; GET /api/faults lists them"}
	}
	if fault.OfConnect() && hasToken {
		return out, problem{"fault", "connect", "strikes a connection while it is opened, so it can't be for one device"}
	}
	out.Fault = fault
	return out, nil
}

// script takes all answers of a request or none.
func (c *console) script(w http.ResponseWriter, r *http.Request) {
	var req script
	body, err := readBody(w, r)
	if err == nil {
		err = decode(body, &req)
	}
	if err == nil {
		err = c.plan(req)
	}
	if err != nil {
		refuseErr(w, err)
		return
	}
	answer(w, http.StatusOK, map[string]int{"scripted": c.sim.Scripted()})
}

func (c *console) plan(req script) error {
	if len(req.Answers) == 0 {
		return problem{"answers", "required", "is missing: at least one answer"}
	}
	if c.sim.Scripted()+len(req.Answers) > maxScripted {
		return problem{"answers", "max_answers", fmt.Sprintf("more than %d answers would wait to be used", maxScripted)}
	}
	answers := make([]apnstest.Answer, len(req.Answers))
	for i, a := range req.Answers {
		var err error
		if answers[i], err = a.check(req.Token != ""); err != nil {
			return at(err, "answers", i)
		}
	}
	if req.Token != "" {
		token, err := deviceToken(req.Token)
		if err != nil {
			return err
		}
		c.sim.NextFor(token, answers...)
		return nil
	}
	for _, a := range answers {
		if a.Fault.OfConnect() {
			c.sim.Inject(a.Fault, 1)
			continue
		}
		c.sim.Next(a)
	}
	return nil
}

func (c *console) clearScript(w http.ResponseWriter, _ *http.Request) {
	c.sim.ClearScripts()
	w.WriteHeader(http.StatusNoContent)
}

// strike has a fault of connections strike all that are open.
func (c *console) strike(w http.ResponseWriter, r *http.Request) {
	var req struct {
		Fault string `json:"fault"`
	}
	body, err := readBody(w, r)
	if err == nil {
		err = decode(body, &req)
	}
	if err != nil {
		refuseErr(w, err)
		return
	}
	fault, err := apnstest.ParseFault(req.Fault)
	if err != nil || !fault.OfConnection() {
		refuseErr(w, problem{"fault", "enum", "has to be a fault of connections; GET /api/faults lists them"})
		return
	}
	answer(w, http.StatusOK, map[string]int{"connections": c.sim.Trigger(fault)})
}

// faults is what the simulator does wrong on purpose. Rates are shares, 0..1,
// of requests or connects.
type faults struct {
	Latency latency            `json:"latency"`
	Rates   map[string]float64 `json:"rates"`
	Late    duration           `json:"late"`  // 0: 3s
	Hold    duration           `json:"hold"`  // 0: 2s
	Burst   int                `json:"burst"` // 0: 5
}

type latency struct {
	Min      duration `json:"min"`
	Jitter   duration `json:"jitter"`
	TailRate float64  `json:"tailRate"`
	Tail     duration `json:"tail"`
}

func showFaults(f apnstest.Faults) faults {
	l := f.Latency
	v := faults{
		Latency: latency{duration(l.Min), duration(l.Jitter), l.TailRate, duration(l.Tail)},
		Rates:   map[string]float64{}, Late: duration(f.Late), Hold: duration(f.Hold), Burst: f.Burst,
	}
	for k, rate := range f.Rates {
		v.Rates[k.String()] = rate
	}
	return v
}

func (f faults) check() (apnstest.Faults, error) {
	l := f.Latency
	out := apnstest.Faults{
		Latency: apnstest.Latency{Min: time.Duration(l.Min), Jitter: time.Duration(l.Jitter), TailRate: l.TailRate, Tail: time.Duration(l.Tail)},
		Rates:   map[apnstest.Fault]float64{}, Late: time.Duration(f.Late), Hold: time.Duration(f.Hold), Burst: f.Burst,
	}
	for name, rate := range f.Rates {
		fault, err := apnstest.ParseFault(name)
		if err != nil || fault == apnstest.NoFault {
			return out, problem{"rates." + name, "enum", "there is no such fault; GET /api/faults lists them"}
		}
		out.Rates[fault] = rate
	}
	return out, nil
}

func (c *console) faults(w http.ResponseWriter, _ *http.Request) {
	answer(w, http.StatusOK, map[string]any{"faults": showFaults(c.sim.Faults()), "seed": c.sim.Seed(), "known": apnstest.AllFaults()})
}

// setFaults replaces the faults; what the body leaves out is off.
func (c *console) setFaults(w http.ResponseWriter, r *http.Request) {
	var req faults
	body, err := readBody(w, r)
	if err == nil {
		err = decode(body, &req)
	}
	var f apnstest.Faults
	if err == nil {
		f, err = req.check()
	}
	if err == nil {
		if bad := c.sim.SetFaults(f); bad != nil {
			err = problem{"faults", "range", bad.Error()}
		}
	}
	if err != nil {
		refuseErr(w, err)
		return
	}
	c.faults(w, r)
}

func (c *console) trust(w http.ResponseWriter, _ *http.Request) {
	if c.sim.Authority() == nil {
		refuse(w, http.StatusNotFound, problem{"", "known", "the simulator's certificate came without its authority"})
		return
	}
	w.Header().Set("Content-Type", "application/x-pem-file")
	w.Header().Set("Content-Disposition", `attachment; filename="apnssim-ca.pem"`)
	_, _ = w.Write(c.sim.Authority().PEM()) // the client is gone; nobody is left to tell
}
