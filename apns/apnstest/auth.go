package apnstest

import (
	"slices"
	"strings"
	"time"

	"badgerelay/apns"
)

// refusal is why a request is refused. The zero value is none.
type refusal struct {
	status    int
	reason    apns.Reason
	rule      Rule
	note      string
	timestamp time.Time // with 410
	final     bool      // the device is not to be pushed to again
}

// auth is who a connection speaks for. Its reader owns it.
type auth struct {
	sim     *Simulator
	cert    *pushCertificate
	text    string // the provider token last accepted; compared, not parsed, for each request
	key     TeamKey
	issued  int64     // of that token
	changed time.Time // when another token was last accepted; zero: still the first
	first   time.Time // when the first push was accepted as authentic
	topic   string    // base topic last allowed
	expired bool      // rule T3: refused for good
	until   time.Time // rule T5: refused until then
}

func (a *auth) init(c *conn) { a.sim, a.cert = c.sim, c.cert }

// check says whether the request may push at all.
func (a *auth) check(q *request, now time.Time) refusal {
	if a.cert != nil {
		return a.checkCertificate(now)
	}
	if q.has&hasAuthorization == 0 {
		return refusal{status: 403, reason: "MissingProviderToken", rule: RuleTokenMissing}
	}
	if a.expired && !a.sim.cfg.ExpiredRecovers {
		return refusal{status: 403, reason: "ExpiredProviderToken", rule: RuleTokenExpired, note: "the connection stays refused after an expired token"}
	}
	if now.Before(a.until) {
		return refusal{status: 429, reason: "TooManyProviderTokenUpdates", rule: RuleTokenUpdates, note: "the connection stays refused until 20 minutes have passed"}
	}
	const scheme = "bearer "
	if len(q.authorization) < len(scheme) || !strings.EqualFold(q.authorization[:len(scheme)], scheme) {
		return refusal{status: 403, reason: "InvalidProviderToken", rule: RuleTokenInvalid, note: "authorization is not bearer"}
	}
	text := q.authorization[len(scheme):]
	if text != a.text || a.text == "" {
		if r := a.renew(text, now); r.status != 0 {
			return r
		}
	}
	if now.Unix()-a.issued > tokenMaxAgeSeconds {
		a.expired = true
		return refusal{status: 403, reason: "ExpiredProviderToken", rule: RuleTokenExpired}
	}
	return refusal{}
}

// renew verifies a token that differs from the last and adopts it.
func (a *auth) renew(text string, now time.Time) refusal {
	invalid := func(rule Rule, note string) refusal {
		return refusal{status: 403, reason: "InvalidProviderToken", rule: rule, note: note}
	}
	t, err := parseToken(text, a.sim.cfg.Strict)
	if err != nil {
		return invalid(RuleTokenInvalid, err.Error())
	}
	key, ok := a.sim.keys.find(t.team, t.key)
	if !ok {
		return invalid(RuleTokenInvalid, "no such team and key")
	}
	if !t.verify(key.Key, !a.sim.cfg.Strict) {
		return invalid(RuleTokenInvalid, "token signature does not verify")
	}
	if t.issuedAt > now.Add(a.sim.cfg.tokenSkew()).Unix() {
		return invalid(RuleTokenFuture, "token was issued in the future")
	}
	if now.Unix()-t.issuedAt > tokenMaxAgeSeconds {
		a.expired = true
		return refusal{status: 403, reason: "ExpiredProviderToken", rule: RuleTokenExpired}
	}
	if key.OnlyIn != nil && *key.OnlyIn != a.sim.cfg.Environment {
		return refusal{status: 403, reason: "BadEnvironmentKeyIdInToken", rule: RuleTokenKey}
	}
	if a.text != "" {
		if t.team != a.key.TeamID {
			return invalid(RuleTokenTeam, "another team than the connection's first push")
		}
		if t.key != a.key.KeyID {
			return refusal{status: 403, reason: "UnrelatedKeyIdInToken", rule: RuleTokenKey}
		}
	}
	if r := a.throttle(&t, text, now); r.status != 0 {
		return r
	}
	a.text, a.key, a.issued = strings.Clone(text), key, t.issuedAt
	if a.first.IsZero() {
		a.first = now
	}
	return refusal{}
}

// throttle refuses a token that comes too soon after the last one (rule T5).
// The token that a connection starts with is no change.
func (a *auth) throttle(t *providerToken, text string, now time.Time) refusal {
	const least = tokenMinChangeSeconds * time.Second
	tooSoon := false
	if a.text != "" {
		tooSoon = !a.changed.IsZero() && now.Sub(a.changed) < least || t.issuedAt-a.issued < tokenMinChangeSeconds
	}
	if !tooSoon && a.sim.cfg.TokenScopeTeam {
		tooSoon = !a.sim.keys.changeTeamToken(t.team, text, now)
	}
	if !tooSoon {
		if a.text != "" {
			a.changed = now
		}
		return refusal{}
	}
	a.sim.clientFaults.count(ClientTokenUpdates, 1)
	if a.sim.cfg.TokenThrottleWedges {
		a.until = now.Add(least)
	}
	return refusal{status: 429, reason: "TooManyProviderTokenUpdates", rule: RuleTokenUpdates}
}

// checkCertificate says whether the certificate may push here (rule T9).
func (a *auth) checkCertificate(now time.Time) refusal {
	switch {
	case a.cert.base == "":
		return refusal{status: 403, reason: "BadCertificate", rule: RuleCertificate, note: "not a push certificate"}
	case !a.cert.environments[a.sim.cfg.Environment]:
		return refusal{status: 403, reason: "BadCertificateEnvironment", rule: RuleCertificate}
	}
	if a.first.IsZero() {
		a.first = now
	}
	return refusal{}
}

// topicSuffixes are what the push types add to the bundle id. Source: Apple,
// "Sending notification requests to APNs" (read 2026-11). mdm has a topic of
// its own kind.
var topicSuffixes = map[string]string{
	"alert": "", "background": "", "complication": ".complication", "controls": ".push-type.controls",
	"fileprovider": ".pushkit.fileprovider", "liveactivity": ".push-type.liveactivity", "location": ".location-query",
	"mdm": "", "pushtotalk": ".voip-ptt", "voip": ".voip", "widgets": ".push-type.widgets",
}

// baseTopic takes the push type's suffix off a topic. It reports false if the
// suffix is wrong for the type.
func baseTopic(topic, pushType string) (base string, ok bool) {
	if want := topicSuffixes[pushType]; want != "" {
		return strings.CutSuffix(topic, want)
	}
	for _, suffix := range topicSuffixes {
		if suffix != "" && strings.HasSuffix(topic, suffix) {
			return strings.TrimSuffix(topic, suffix), pushType == "" || pushType == "mdm"
		}
	}
	return topic, true
}

// checkTopic says whether the topic may be pushed to, and returns its bundle id.
func (a *auth) checkTopic(q *request) (base string, r refusal) {
	topic := q.topic
	if topic == "" {
		if a.cert == nil || len(a.cert.topics) != 1 {
			return "", refusal{status: 400, reason: "MissingTopic", rule: RuleTopicMissing}
		}
		topic = a.cert.topics[0]
	}
	if topic == a.topic && q.pushType == "alert" {
		return topic, refusal{} // the same as the last one
	}
	base, ok := baseTopic(topic, q.pushType)
	if !ok {
		return base, refusal{status: 400, reason: "BadTopic", rule: RuleTopic, note: "the topic's suffix does not fit the push type"}
	}
	if a.cert != nil {
		if !slices.Contains(a.cert.topics, topic) {
			return base, refusal{status: 400, reason: "TopicDisallowed", rule: RuleCertificate}
		}
	} else {
		since, ok := a.sim.keys.allowed(base, a.key.Topics)
		if !ok {
			return base, refusal{status: 400, reason: "TopicDisallowed", rule: RuleTopic}
		}
		if since.After(a.first) {
			return base, refusal{status: 400, reason: "TopicDisallowed", rule: RuleTopicAdded}
		}
	}
	if topic == base {
		a.topic = strings.Clone(topic)
	}
	return base, refusal{}
}
