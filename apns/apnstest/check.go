package apnstest

import (
	"bytes"
	"encoding/json"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"badgerelay/apns"
)

// check applies the rules of requests. Apple does not document the order in
// which it checks; tests break one rule at a time.
func (r *reader) check(st *stream, now time.Time) refusal {
	q := &st.req
	token, isDevice := q.devicePath()
	switch {
	case q.tooLarge:
		return refusal{status: 431, rule: RuleHTTP2, note: "header list exceeds SETTINGS_MAX_HEADER_LIST_SIZE"}
	case q.method != "POST":
		return refusal{status: 405, reason: "MethodNotAllowed", rule: RuleMethod}
	case !isDevice:
		return refusal{status: 404, reason: "BadPath", rule: RulePath}
	case token == "":
		return refusal{status: 400, reason: "MissingDeviceToken", rule: RulePath}
	case q.duplicate != "":
		return refusal{status: 400, reason: "DuplicateHeaders", rule: RuleDuplicate, note: q.duplicate}
	}
	wellFormed := q.readToken(token)
	if no := r.auth.check(q, now); no.status != 0 {
		return no
	}
	st.authentic = true
	if no := checkHeaders(q, r.c.sim.cfg.Strict); no.status != 0 {
		return no
	}
	base, no := r.auth.checkTopic(q)
	if no.status != 0 {
		return no
	}
	if no := st.checkPayload(); no.status != 0 {
		return no
	}
	if !wellFormed {
		return refusal{status: 400, reason: "BadDeviceToken", rule: RuleDeviceToken, note: "not 32 to 100 bytes in hexadecimal"}
	}
	return r.c.sim.checkDevice(st, base, now)
}

// checkHeaders checks the values of the documented fields.
func checkHeaders(q *request, strict bool) refusal {
	bad := func(reason apns.Reason, rule Rule) refusal { return refusal{status: 400, reason: reason, rule: rule} }
	if q.has&hasID != 0 && (!validUUID(q.id) || strict && strings.ToLower(q.id) != q.id) {
		return bad("BadMessageId", RuleID)
	}
	if q.has&hasExpiration != 0 && q.expirationValue() < 0 {
		return bad("BadExpirationDate", RuleExpiration)
	}
	if q.has&hasPriority != 0 && q.priority != "10" && q.priority != "5" && q.priority != "1" {
		return bad("BadPriority", RulePriority)
	}
	if len(q.collapseID) > maxCollapseID {
		return bad("BadCollapseId", RuleCollapseID)
	}
	if q.has&hasPushType == 0 || q.pushType == "alert" {
		return refusal{}
	}
	if _, ok := topicSuffixes[q.pushType]; !ok {
		return bad("InvalidPushType", RulePushType)
	}
	if q.pushType == "background" && q.priorityValue() == 10 {
		return bad("BadPriority", RulePriority)
	}
	return refusal{}
}

// checkPayload checks the payload and reads the badge from it.
func (st *stream) checkPayload() refusal {
	st.badge = -1
	switch {
	case len(st.body) == 0:
		return refusal{status: 400, reason: "PayloadEmpty", rule: RulePayload}
	case len(st.body) > st.req.maxPayload():
		return refusal{status: 413, reason: "PayloadTooLarge", rule: RulePayload}
	}
	if n, ok := plainBadge(st.body); ok {
		st.badge = n
		st.checkPushType(true)
		return refusal{}
	}
	payload, twice, err := parseObject(st.body)
	if err != nil {
		// Apple names no reason for this; the nearest one it has.
		return refusal{status: 400, reason: "PayloadEmpty", rule: RulePayloadNotJSON, note: "payload is not the JSON that APNs expects: " + err.Error()}
	}
	st.readAPS(payload["aps"], slices.Contains(twice, "aps"))
	return refusal{}
}

// readAPS takes the badge from the aps dictionary, and notes what a device
// would not show: APNs takes the push all the same.
func (st *stream) readAPS(raw json.RawMessage, twice bool) {
	aps, more, err := parseObject(raw)
	twice = twice || slices.Contains(more, "badge")
	badge, isCount := parseBadge(aps["badge"])
	visible := aps.has("badge") || aps.has("alert") || aps.has("sound")
	switch {
	case err != nil:
		st.note = "would not be shown: there is no aps dictionary (rule R8)"
	case twice:
		st.note = "badge unchanged: aps or badge comes twice, and which one counts is not defined"
	case isCount:
		st.badge = badge
	case aps.has("badge"):
		st.note = "badge unchanged: it is not a whole number within 0..2147483647"
	}
	if err == nil {
		st.checkPushType(visible)
	}
}

// checkPushType takes the badge away, and notes why, where the push type does
// not fit what is in the payload (rule R8): only an alert, which is also what
// a push without a type is taken for, changes the badge.
func (st *stream) checkPushType(visible bool) {
	switch t := st.req.pushType; {
	case t == "background" && visible:
		st.badge, st.note = -1, "would delay or drop: background with alert, badge or sound (rule R8)"
	case t == "alert" && !visible:
		st.note = "would delay or drop: alert without alert, badge or sound (rule R8)"
	case t != "alert" && t != "" && st.badge >= 0:
		st.badge, st.note = -1, "badge unchanged: push type "+t+" shows none (rule R8)"
	}
}

// parseBadge reads a badge: a JSON number whose value is a count, however it
// is written (7, 7.0, 70e-1). A string is none (Apple, "Generating a remote
// notification", read 2026-11: badge is a Number).
func parseBadge(raw json.RawMessage) (badge int64, ok bool) {
	if !isNumber(string(raw)) {
		return -1, false
	}
	f, err := strconv.ParseFloat(string(raw), 64)
	if err != nil || f < 0 || f > apns.MaxBadge || f != math.Trunc(f) {
		return -1, false
	}
	return int64(f), true
}

// plainBadge reads the payload {"aps":{"badge":N}}, which nearly all are,
// without the cost of a JSON parser. Its slow path is readAPS.
func plainBadge(b []byte) (int64, bool) {
	b, ok := bytes.CutPrefix(b, []byte(`{"aps":{"badge":`))
	if !ok {
		return 0, false
	}
	if b, ok = bytes.CutSuffix(b, []byte(`}}`)); !ok || len(b) == 0 || len(b) > 10 || len(b) > 1 && b[0] == '0' {
		return 0, false
	}
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
	}
	n, err := strconv.ParseInt(string(b), 10, 64)
	return n, err == nil && n <= apns.MaxBadge
}

// checkDevice looks the device up, and counts the push as in flight to it.
func (s *Simulator) checkDevice(st *stream, base string, now time.Time) refusal {
	raw := st.req.token()
	sh := s.devices.shard(raw)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	d := sh.m[string(raw)]
	if d == nil && s.cfg.AcceptUnknownDevices {
		if s.cfg.Fast {
			return refusal{}
		}
		token, err := apns.DeviceTokenFromBytes(raw)
		if err != nil {
			return refusal{status: 400, reason: "BadDeviceToken", rule: RuleDeviceToken, note: err.Error()}
		}
		d = &device{Device: Device{Token: token, Topic: base, Environment: s.cfg.Environment, Online: true, RegisteredAt: now}}
		sh.m[string(raw)] = d
	}
	if d == nil {
		if !s.cfg.Fast {
			if since := s.unknown.first(raw); !since.IsZero() && now.Sub(since) > deadGrace {
				s.clientFaults.count(ClientDeadDevice, 1)
			}
		}
		return refusal{status: 400, reason: "BadDeviceToken", rule: RuleDeviceToken, note: "no such device", final: true}
	}
	st.dev, st.shard = d, sh
	if !s.cfg.Fast {
		if dead := d.client(st.client).deadAt; !dead.IsZero() && now.Sub(dead) > deadGrace {
			s.clientFaults.countFor(ClientDeadDevice, d.Token)
		}
	}
	switch {
	case d.Environment != s.cfg.Environment:
		return refusal{status: 400, reason: "BadDeviceToken", rule: RuleDeviceToken, note: "the device is of the other environment", final: true}
	case !d.ExpiredAt.IsZero() && !now.Before(d.ExpiredAt):
		return refusal{status: 410, reason: "ExpiredToken", rule: RuleDeviceExpired, timestamp: d.ExpiredAt, final: true}
	case !d.goneAfter.IsZero() && !now.Before(d.goneAfter):
		return refusal{status: 410, reason: "Unregistered", rule: RuleUnregistered, timestamp: d.UnregisteredAt, final: true}
	case d.Topic != base:
		return refusal{status: 400, reason: "DeviceTokenNotForTopic", rule: RuleDeviceTopic}
	}
	if s.cfg.Fast {
		return refusal{}
	}
	return s.checkRate(st, d, now)
}

// checkRate refuses too many pushes to one device (rule R16), and counts this one
// as in flight.
func (s *Simulator) checkRate(st *stream, d *device, now time.Time) refusal {
	if second := now.Unix(); second != d.window {
		d.window, d.count = second, 0
	}
	d.count++
	st.counted = true
	d.inFlight++
	d.client(st.client).inFlight++
	many := refusal{status: 429, reason: "TooManyRequests", rule: RuleTooManyPushes}
	if limit := s.cfg.maxDeviceInFlight(); limit > 0 && d.inFlight >= limit {
		many.note = "concurrent requests to one device"
		return many
	}
	if limit := s.cfg.maxDevicePerSecond(); limit > 0 && d.count > limit {
		many.note = "requests to one device within a second"
		return many
	}
	return refusal{}
}
