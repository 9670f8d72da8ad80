package apnstest

import "golang.org/x/net/http2"

// assumedLimit is what clients assume before they hear of a limit: RFC 9113,
// section 6.5.2, recommends no less.
const assumedLimit = 100

// limits is the number of streams granted. A client may use the old number
// until it acknowledges a lower one (RFC 9113, section 6.5.3).
type limits struct {
	announced uint32   // by the last SETTINGS
	acked     uint32   // by the last SETTINGS that was acknowledged
	pending   []uint32 // announced since
	trusted   bool     // the first valid token was answered (rule C4), or a certificate
	heard     bool     // the client acknowledged the first SETTINGS
}

// init sets the first limit, and whether it holds before the client has heard of
// it. APNs was seen to end the connection of a client that does not wait
// (golang/go#17265, read 2026-11), and serves node-apn, which does not either.
func (l *limits) init(first uint32, atOnce bool) {
	l.announced, l.acked, l.trusted = first, max(first, assumedLimit), first > 1
	if atOnce {
		l.acked = first
	}
}

// early reports whether a client with n streams open opens another one without
// having waited for the limit that it breaks.
func (l *limits) early(n uint32) bool { return !l.heard && n >= l.announced }

// inForce is the highest number that the client may still believe in.
func (l *limits) inForce() uint32 {
	n := l.acked
	for _, p := range l.pending {
		n = max(n, p)
	}
	return n
}

// ack takes an acknowledgement. It reports false if there was nothing to
// acknowledge.
func (l *limits) ack() bool {
	if len(l.pending) == 0 {
		return false
	}
	l.acked = l.pending[0]
	l.pending = l.pending[1:]
	l.heard = true
	return true
}

// announce sends the first SETTINGS (rule C2), before anything that gathered
// when they are late (RFC 9113, section 3.4). mu must be held.
func (c *conn) announce() {
	gathered := c.out.b
	c.out.b, c.settingsSent = nil, true
	c.writeSettings(
		http2.Setting{ID: http2.SettingHeaderTableSize, Val: headerTableSize},
		http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: c.limits.announced},
		http2.Setting{ID: http2.SettingInitialWindowSize, Val: initialWindow},
		http2.Setting{ID: http2.SettingMaxFrameSize, Val: maxFrameSize},
		http2.Setting{ID: http2.SettingMaxHeaderListSize, Val: maxHeaderListSize},
	)
	c.out.b = append(c.out.b, gathered...)
	c.limits.pending = append(c.limits.pending, c.limits.announced)
}

// setLimit announces another limit. mu must be held.
func (c *conn) setLimit(n uint32) {
	if c.limits.announced == n {
		return
	}
	c.limits.announced = n
	c.limits.pending = append(c.limits.pending, n)
	c.writeSettings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: n})
}

// restoreLimit announces what the connection has earned. mu must be held.
func (c *conn) restoreLimit() {
	switch {
	case !c.limits.trusted || c.slowed:
		c.setLimit(1)
	default:
		c.setLimit(c.sim.cfg.streamLimit())
	}
}

// overLimit answers a stream beyond the limit. mu must be held. It reports
// whether the connection goes on.
func (c *conn) overLimit(id uint32) bool {
	c.sim.clientFaults.count(ClientOverLimit, 1)
	lowered := c.limits.trusted && c.limits.announced < c.sim.cfg.streamLimit()
	if lowered || c.sim.cfg.ResetOverLimit {
		rule := RuleStreamLimit
		if lowered {
			rule = RuleLowered
		}
		c.sim.counters.refused("", rule)
		c.debug("stream refused", "rule", string(rule), "stream", id, "limit", c.limits.announced)
		c.resetStream(id, http2.ErrCodeRefusedStream)
		return true
	}
	c.sim.counters.refused("", RuleStreamLimit)
	c.debug("connection ended", "rule", string(RuleStreamLimit), "stream", id, "limit", c.limits.announced)
	c.goAway(c.processed, http2.ErrCodeRefusedStream, []byte(overLimitText))
	c.end()
	return false
}

// overLimitText is verbatim what APNs sent: developer forums 54407 (read 2026-11).
const overLimitText = "Maximum active streams violated for this endpoint."

// judge keeps the connection's score (rule C5). mu must be held.
func (c *conn) judge(status int, reason string) {
	switch {
	case status == 200:
		c.score = max(0, c.score-1)
		if c.slowed && c.score <= c.sim.cfg.errorSlowdown()/2 {
			c.slowed = false
			c.restoreLimit()
		}
		return
	case status < 400 || status >= 500 || status == 410: // 410 does not count (rule C5)
		return
	case reason == "BadDeviceToken":
		c.score += 4
	default:
		c.score++
	}
	if t := c.sim.cfg.errorDisconnect(); t > 0 && c.score >= t && c.goAwayAt.IsZero() {
		c.sim.counters.refused("", RuleErrors)
		c.debug("connection ended", "rule", string(RuleErrors), "score", c.score)
		c.goAway(c.processed, http2.ErrCodeNo, reasonJSON(reason))
		return
	}
	if t := c.sim.cfg.errorSlowdown(); t > 0 && c.score >= t && !c.slowed {
		c.slowed = true
		c.debug("connection slowed down", "rule", string(RuleErrors), "score", c.score)
		c.setLimit(1)
	}
}
