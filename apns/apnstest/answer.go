package apnstest

import (
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http2"

	"badgerelay/apns"
)

// complete checks a whole request and answers it, now or after its delay.
func (r *reader) complete(st *stream) {
	c, s := r.c, r.c.sim
	now := time.Now()
	s.counters.requests.Add(1)
	st.complete, st.arrived, st.badge = true, now, -1
	st.no = r.check(st, now)
	if s.cfg.Fast && st.no.status == 0 {
		r.lane.learn(st)
	}
	st.keyID = r.auth.key.KeyID
	r.decideFault(st, now)
	if st.req.has&hasID == 0 {
		st.req.id = r.randomID()
	}
	if s.cfg.Environment == Sandbox {
		st.unique = r.randomID()
	}
	plan := s.plan.Load()
	delay := plan.delay(r.rng) + st.script.Delay
	if st.fault == FaultLate {
		delay += plan.late()
	}
	c.mu.Lock()
	live := c.streams[st.id] == st // not ended by a fault meanwhile
	st.submitted = live
	if st.fault.OfConnection() {
		c.strikeLocked(st.fault, st)
	}
	switch {
	case !live:
		c.unanswered(st, "disowned by GOAWAY")
	case c.streams[st.id] != st: // ended by this fault
	case delay > 0:
		c.queued++
		c.queue.push(later{due: now.Add(delay), seq: c.queued, st: st})
	default:
		c.finish(st, now)
	}
	changed, notes := c.takeNews()
	c.mu.Unlock()
	c.spread(changed, notes)
}

// decideFault draws the request's fault and puts scripts and faults in the
// place of what the rules said.
func (r *reader) decideFault(st *stream, now time.Time) {
	s := r.c.sim
	if s.scripted.Load() > 0 {
		token, _ := apns.DeviceTokenFromBytes(st.req.token()) // the zero token has no script
		st.script = s.nextAnswer(token)
	}
	plan := s.plan.Load()
	st.fault = st.script.Fault
	if st.fault == NoFault && r.left > 0 {
		st.fault = r.burst
		r.left--
	} else if st.fault == NoFault {
		if st.fault = draw(plan.requests, r.rng); st.fault.bursts() {
			r.burst, r.left = st.fault, plan.burst()-1
		}
	}
	if st.fault != NoFault {
		s.counters.inject(st.fault)
		r.c.log.Info("fault injected", "fault", st.fault.String(), "stream", st.id)
	}
	if a := &st.script; a.Status != 0 {
		st.no = refusal{status: a.Status, reason: a.Reason, timestamp: a.Timestamp, note: "scripted"}
		if a.Status == 403 {
			st.authentic = false
		}
		if a.Status == 200 {
			st.no = refusal{}
		}
	}
	r.overrule(st, now)
	if !s.cfg.Fast && st.dev != nil && s.serverErrors.size() > 0 {
		since := s.serverErrors.first(payloadKey(st.dev.Token, st.body, st.client))
		if !since.IsZero() && now.Sub(since) < s.cfg.serverErrorWait() {
			s.clientFaults.countFor(ClientEarly5xx, st.dev.Token)
		}
	}
}

// bursts reports whether the fault strikes several requests in a row.
func (f Fault) bursts() bool {
	return f == FaultServerError || f == FaultUnavailable || f == FaultShuttingDown || f == FaultTooMany
}

// overrule sets the answer that a fault wants.
func (r *reader) overrule(st *stream, now time.Time) {
	status, reason := 0, apns.Reason("")
	switch st.fault {
	case FaultServerError:
		status, reason = 500, "InternalServerError"
	case FaultUnavailable:
		status, reason = 503, "ServiceUnavailable"
	case FaultShuttingDown:
		status, reason = 503, "Shutdown"
	case FaultTooMany:
		status, reason = 429, "TooManyRequests"
	case FaultTokenExpired:
		status, reason = 403, "ExpiredProviderToken"
		r.auth.expired, st.authentic = true, false
	case FaultDuplicateGone, FaultOldTimestamp:
		if st.no.status == 0 {
			st.no = refusal{status: 410, reason: "Unregistered", timestamp: now.Add(-24 * time.Hour)}
			if st.dev != nil {
				st.shard.mu.Lock()
				st.no.timestamp = st.dev.RegisteredAt.Add(-time.Hour)
				st.shard.mu.Unlock()
			}
		}
	}
	if status != 0 {
		st.no = refusal{status: status, reason: reason}
	}
}

// finish answers a request that is due. mu must be held.
func (c *conn) finish(st *stream, now time.Time) {
	if c.wedged {
		st.no = refusal{status: 500, reason: "InternalServerError", note: "wedged by injected fault"}
	}
	if st.fault == FaultRefuseStream {
		c.resetStream(st.id, http2.ErrCodeRefusedStream)
		c.drop(st, "refused by injected fault")
		return
	}
	c.touchDevice(st, now)
	status, s := 200, c.sim
	if st.no.status != 0 {
		status = st.no.status
		s.counters.refused(st.no.reason, st.no.rule)
		c.debug("request refused", "status", status, "reason", string(st.no.reason), "rule", string(st.no.rule), "note", st.no.note, "stream", st.id)
		if badRequest[st.no.reason] {
			s.clientFaults.count(ClientBadRequest, 1)
		}
	} else {
		s.counters.accepted.Add(1)
	}
	if !s.cfg.Fast {
		s.clientFaults.count(ClientIgnoredHeaders, st.req.ignored)
	}
	if st.fault == FaultStallStream {
		c.record(st, time.Time{}, 0, "")
		return // the stream stays open
	}
	c.record(st, now, status, st.req.id)
	c.encode(st, status)
	if !c.limits.trusted && st.authentic {
		c.limits.trusted = true // rule C4
		c.restoreLimit()
	}
	c.judge(status, string(st.no.reason))
	if len(st.tail) == 0 {
		c.answered(st)
	}
}

// answered closes a stream whose answer is written. mu must be held.
func (c *conn) answered(st *stream) {
	if st.early {
		c.resetStream(st.id, http2.ErrCodeNo) // RFC 9113, section 8.1: the rest is not wanted
	}
	if st.fault == FaultDuplicateGone {
		again := st.fault
		st.fault = NoFault
		c.encode(st, st.no.status)
		st.fault, st.tail = again, nil
	}
	c.answerLate()
	c.closeStream(st)
}

// badRequest are the reasons that say the client made the request wrongly.
var badRequest = map[apns.Reason]bool{
	"BadCollapseId": true, "BadExpirationDate": true, "BadMessageId": true, "BadPriority": true, "BadTopic": true,
	"DuplicateHeaders": true, "InvalidPushType": true, "MissingDeviceToken": true, "MissingTopic": true,
	"PayloadEmpty": true, "PayloadTooLarge": true, "BadPath": true, "MethodNotAllowed": true, "MissingProviderToken": true,
}

// touchDevice does to the device what the answer says. mu must be held.
func (c *conn) touchDevice(st *stream, now time.Time) {
	s := c.sim
	d := st.dev
	if d == nil {
		if st.no.final && !s.cfg.Fast {
			s.unknown.see(st.req.token(), now)
		}
		return
	}
	st.shard.mu.Lock()
	defer st.shard.mu.Unlock()
	if st.counted {
		// What this project's relay must never do: two in flight. It shows when
		// one is answered. A push whose connection has ended is none, even
		// though its end may be seen here later than what was sent instead.
		own := d.client(st.client)
		if own.inFlight > 1 {
			s.clientFaults.countFor(ClientTwoInFlight, d.Token)
		}
		own.inFlight--
		d.inFlight--
		st.counted = false
	}
	switch {
	case st.no.status == 0:
		s.accept(d, notification{st.badge, st.req.expirationValue()}, st.req.priorityValue(), now)
		st.shard.sawPush(d)
		if s.devices.watching.Load() > 0 {
			c.changed = append(c.changed, d.Device)
		}
	case c.unheard(st):
		// A client can't heed what it was never told.
	case d.RegisteredAt.After(st.arrived):
		// The answer is about the time before the device was registered anew.
	case st.no.final:
		if own := d.client(st.client); own.deadAt.IsZero() {
			own.deadAt = now
		}
	case st.no.status >= 500 && !s.cfg.Fast && st.no.reason != "Shutdown":
		key := payloadKey(d.Token, st.body, st.client)
		s.serverErrors.see(key, now)
		c.noteServerError(key, now)
	}
}

// unheard reports whether a fault keeps the answer from the client. mu must be
// held.
func (c *conn) unheard(st *stream) bool {
	switch st.fault {
	case FaultStallStream, FaultAnswerReset, FaultResetStream: // of a wedged connection they keep the 500 back
		return true
	}
	return c.halfClose || c.stalled
}

// serverError is a payload that was refused with a 5xx.
type serverError struct {
	key []byte
	at  time.Time
}

// lostWithReset is how long before a reset an answer may have been written that
// the client has not read: a reset discards what waits to be (RFC 9293, section
// 3.10.7.4). Ours, for a busy machine.
const lostWithReset = time.Second

// noteServerError notes a 5xx while a reset may keep it from the client. mu must be
// held.
func (c *conn) noteServerError(key []byte, now time.Time) {
	for len(c.serverErrors) > 0 && now.Sub(c.serverErrors[0].at) >= lostWithReset {
		c.serverErrors = c.serverErrors[1:]
	}
	c.serverErrors = append(c.serverErrors, serverError{key, now})
}

// forgetUnread forgets the 5xx that a reset may have kept from the client. mu
// must be held.
func (c *conn) forgetUnread(now time.Time) {
	for _, e := range c.serverErrors {
		if now.Sub(e.at) < lostWithReset {
			c.sim.serverErrors.forget(e.key)
		}
	}
	c.serverErrors = nil
}

// errorBody is the answer's body; empty for 200.
func (st *stream) errorBody() []byte {
	switch {
	case st.script.Body != "" && st.script.Status != 0:
		return []byte(st.script.Body)
	case st.no.status == 0 || st.no.reason == "":
		return nil
	}
	b := append(make([]byte, 0, 64), `{"reason":`...)
	b = strconv.AppendQuote(b, string(st.no.reason))
	if !st.no.timestamp.IsZero() {
		b = append(b, `,"timestamp":`...)
		b = strconv.AppendInt(b, st.no.timestamp.UnixMilli(), 10)
	}
	return append(b, '}')
}

// encode writes the answer (rules R17 and R18), with its fault. mu must be held.
func (c *conn) encode(st *stream, status int) {
	if c.halfClose {
		return // nobody will read it
	}
	body := st.errorBody()
	if c.sim.cfg.Fast && status == 200 && st.fault == NoFault && body == nil && st.unique == "" {
		c.encodeFast(st)
		return
	}
	switch st.fault {
	case FaultUnknownFrames:
		_ = c.framer.WriteRawFrame(0xbe, 0xff, 0, []byte("what is this"))                     // into memory, like
		_ = c.framer.WriteRawFrame(0xbf, 0x00, st.id, []byte("and this"))                     // all that follows
		_ = c.framer.WriteRawFrame(http2.FrameSettings, 0, 0, []byte{0xfa, 0xce, 0, 0, 0, 1}) // unknown setting
		c.limits.pending = append(c.limits.pending, c.limits.announced)
	case FaultInformational:
		c.encBuf.Reset()
		c.field(":status", "103")
		c.field("link", "</icon>; rel=preload")
		c.writeBlock(st.id, false, 0)
	case FaultAnswerReset:
		c.resetStream(st.id, http2.ErrCodeCancel)
	}
	c.headerFields(st, status, len(body) > 0)
	if st.fault == FaultResetStream {
		c.writeBlock(st.id, false, 0)
		c.resetStream(st.id, http2.ErrCodeInternal)
		return
	}
	pieces := 0
	if st.fault == FaultSplitAnswer {
		pieces = 7
	}
	c.writeBlock(st.id, len(body) == 0 && pieces == 0, pieces)
	if len(body) == 0 && pieces > 0 {
		_ = c.framer.WriteDataPadded(st.id, true, nil, nil)
		return
	}
	if st.tail = body; len(body) > 0 && !c.sendBody(st) {
		c.blocked = append(c.blocked, st)
	}
}

// headerFields puts the answer's fields into encBuf. mu must be held.
func (c *conn) headerFields(st *stream, status int, body bool) {
	c.encBuf.Reset()
	c.field(":status", strconv.Itoa(status))
	if st.fault != FaultMissingID && st.req.id != "" {
		c.field("apns-id", st.req.id)
	}
	if st.unique != "" {
		c.field("apns-unique-id", st.unique)
	}
	if body {
		c.field("content-type", "application/json")
	}
	if d := st.script.RetryAfter; d > 0 {
		c.field("retry-after", strconv.Itoa(int(d.Seconds())))
	}
	if st.fault == FaultHugeHeaders {
		for i := range 64 {
			c.field("x-huge-"+strconv.Itoa(i), strings.Repeat("x", 1024))
		}
	}
}

// statusOK is :status 200, indexed: RFC 7541, appendix A.
const statusOK = 0x88

// encodeFast writes a plain 200 without the compression table.
func (c *conn) encodeFast(st *stream) { c.appendOK(st.id, st.req.id) }

// appendOK writes an answer with status 200 and an apns-id, as APNs sends one
// with each answer: the push's own, or one that is made up. mu must be held.
func (c *conn) appendOK(stream uint32, id string) {
	const name, size, block = "apns-id", 36, 1 + 2 + 7 + 1 + 36 // each length takes one byte
	c.out.b = append(c.out.b, 0, 0, block, byte(http2.FrameHeaders), byte(http2.FlagHeadersEndHeaders|http2.FlagHeadersEndStream),
		byte(stream>>24), byte(stream>>16), byte(stream>>8), byte(stream), statusOK, 0, byte(len(name)))
	c.out.b = append(c.out.b, name...)
	c.out.b = append(c.out.b, size)
	if id != "" { // a valid one, or the answer would not be 200
		c.out.b = append(c.out.b, id...)
		return
	}
	c.out.b = append(c.out.b, "00000000-0000-4000-8000-"...)
	c.answers++
	for shift := 44; shift >= 0; shift -= 4 {
		c.out.b = append(c.out.b, "0123456789abcdef"[c.answers>>shift&15])
	}
}

// sendBody writes as much of the body as the windows allow, and reports
// whether all is written. mu must be held.
func (c *conn) sendBody(st *stream) bool {
	split := st.fault == FaultSplitAnswer
	for len(st.tail) > 0 {
		n, pad := min(int64(len(st.tail)), c.window, st.window, maxFrameSize), int64(0)
		if split && n > 5 {
			n, pad = 5, min(20, c.window-6, st.window-6)
		}
		if n <= 0 {
			return false
		}
		last := int(n) == len(st.tail)
		if pad > 0 {
			_ = c.framer.WriteDataPadded(st.id, last, st.tail[:n], make([]byte, pad)) // into memory
			n, pad = n+pad+1, pad+1
		} else {
			_ = c.framer.WriteData(st.id, last, st.tail[:n]) // into memory
			pad = 0
		}
		c.window -= n
		st.window -= n
		st.tail = st.tail[n-pad:]
	}
	return true
}

// unblock sends what waited for a window. mu must be held.
func (c *conn) unblock() {
	waiting := c.blocked
	c.blocked = nil
	for _, st := range waiting {
		if c.streams[st.id] != st {
			continue
		}
		if !c.sendBody(st) {
			c.blocked = append(c.blocked, st)
			continue
		}
		c.answered(st)
	}
}
