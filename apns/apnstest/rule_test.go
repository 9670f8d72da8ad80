package apnstest

import (
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"badgerelay/apns"
)

// TestRequestRules breaks each rule of requests alone.
func TestRequestRules(t *testing.T) {
	fixture()
	path := "/3/device/"
	tests := []struct {
		name    string
		body    string
		changes []string
		want    string
		rule    Rule
	}{
		{"method", badgeOf3, []string{":method", "PUT"}, "405 MethodNotAllowed", RuleMethod},
		{"path", badgeOf3, []string{":path", "/2/device/" + phone(1).Hex()}, "404 BadPath", RulePath},
		{"no device token", badgeOf3, []string{":path", path}, "400 MissingDeviceToken", RulePath},
		{"id", badgeOf3, []string{"apns-id", "7"}, "400 BadMessageId", RuleID},
		{"id in upper case", badgeOf3, []string{"apns-id", strings.ToUpper(pushID)}, "200", ""},
		{"topic twice", badgeOf3, []string{"+apns-topic", topic}, "400 DuplicateHeaders", RuleDuplicate},
		{"expiration", badgeOf3, []string{"apns-expiration", "soon"}, "400 BadExpirationDate", RuleExpiration},
		{"expiration with a sign", badgeOf3, []string{"apns-expiration", "+1900000000"}, "400 BadExpirationDate", RuleExpiration},
		{"negative expiration", badgeOf3, []string{"apns-expiration", "-1"}, "400 BadExpirationDate", RuleExpiration},
		{"priority", badgeOf3, []string{"apns-priority", "7"}, "400 BadPriority", RulePriority},
		{"priority 5", badgeOf3, []string{"apns-priority", "5"}, "200", ""},
		{"background at 10", `{"aps":{"content-available":1}}`, []string{"apns-push-type", "background", "apns-priority", "10"}, "400 BadPriority", RulePriority},
		{"collapse id of 64", badgeOf3, []string{"apns-collapse-id", strings.Repeat("c", 64)}, "200", ""},
		{"collapse id of 65", badgeOf3, []string{"apns-collapse-id", strings.Repeat("c", 65)}, "400 BadCollapseId", RuleCollapseID},
		{"push type", badgeOf3, []string{"apns-push-type", "badge"}, "400 InvalidPushType", RulePushType},
		{"no push type", badgeOf3, []string{"apns-push-type", "-"}, "200", ""},
		{"no topic", badgeOf3, []string{"apns-topic", "-"}, "400 MissingTopic", RuleTopicMissing},
		{"topic of others", badgeOf3, []string{"apns-topic", "com.example.other"}, "400 TopicDisallowed", RuleTopic},
		{"suffix missing", badgeOf3, []string{"apns-push-type", "voip"}, "400 BadTopic", RuleTopic},
		{"suffix too much", badgeOf3, []string{"apns-topic", topic + ".voip"}, "400 BadTopic", RuleTopic},
		{"voip", badgeOf3, []string{"apns-push-type", "voip", "apns-topic", topic + ".voip"}, "200", ""},
		{"no payload", "", nil, "400 PayloadEmpty", RulePayload},
		{"payload of 4096", pad(4096), nil, "200", ""},
		{"payload of 4097", pad(4097), nil, "413 PayloadTooLarge", RulePayload},
		{"payload not JSON", "badge", nil, "400 PayloadEmpty", RulePayloadNotJSON},
		{"payload an array", `[{"aps":{"badge":3}}]`, nil, "400 PayloadEmpty", RulePayloadNotJSON},
		{"payload with more behind", badgeOf3 + badgeOf3, nil, "400 PayloadEmpty", RulePayloadNotJSON},
		{"payload cut off", `{"aps":{"badge":3}`, nil, "400 PayloadEmpty", RulePayloadNotJSON},
		{"payload not UTF-8", "{\"aps\":{\"badge\":3},\"x\":\"\xff\"}", nil, "400 PayloadEmpty", RulePayloadNotJSON},
		{"voip payload of 5120", pad(5120), []string{"apns-push-type", "voip", "apns-topic", topic + ".voip"}, "200", ""},
		{"voip payload of 5121", pad(5121), []string{"apns-push-type", "voip", "apns-topic", topic + ".voip"}, "413 PayloadTooLarge", RulePayload},
		{"token not hex", badgeOf3, []string{":path", path + strings.Repeat("zz", 32)}, "400 BadDeviceToken", RuleDeviceToken},
		{"token too short", badgeOf3, []string{":path", path + strings.Repeat("ab", 31)}, "400 BadDeviceToken", RuleDeviceToken},
		{"token unknown", badgeOf3, []string{":path", path + phone(99).Hex()}, "400 BadDeviceToken", RuleDeviceToken},
		{"other environment", badgeOf3, []string{":path", path + phone(2).Hex()}, "400 BadDeviceToken", RuleDeviceToken},
		{"other topic", badgeOf3, []string{":path", path + phone(3).Hex()}, "400 DeviceTokenNotForTopic", RuleDeviceTopic},
		{"unregistered", badgeOf3, []string{":path", path + phone(4).Hex()}, "410 Unregistered", RuleUnregistered},
		{"expired", badgeOf3, []string{":path", path + phone(5).Hex()}, "410 ExpiredToken", RuleDeviceExpired},
		{"header list", badgeOf3, []string{"x-large", strings.Repeat("x", 8000)}, "431", RuleHTTP2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSim(t, nil)
				defer s.Close()
				s.RegisterDevice(phone(2), topic, Sandbox, Meta{})
				s.RegisterDevice(phone(3), "com.example.other", Production, Meta{})
				s.RegisterDevice(phone(4), topic, Production, Meta{})
				s.RegisterDevice(phone(5), topic, Production, Meta{})
				s.Unregister(phone(4), time.Now())
				s.ExpireDevice(phone(5), time.Now())
				c := connect(t, s, nil)
				defer c.close()
				if got := c.push(tt.body, tt.changes...); got != tt.want {
					t.Errorf("answer: got %q, want %q", got, tt.want)
				}
				if got := broken(s); got != tt.rule {
					t.Errorf("rule: got %q, want %q", got, tt.rule)
				}
			})
		})
	}
}

func formatInt(n int64) string { return strconv.FormatInt(n, 10) }

// pad makes a payload of n bytes.
func pad(n int) string {
	const head, tail = `{"aps":{"badge":1},"x":"`, `"}`
	return head + strings.Repeat("x", n-len(head)-len(tail)) + tail
}

func TestPayloadMismatchIsNoted(t *testing.T) {
	fixture()
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t, nil)
		defer s.Close()
		c := connect(t, s, nil)
		defer c.close()
		if got := c.push(badgeOf3, "apns-push-type", "background", "apns-priority", "5"); got != "200" {
			t.Errorf("background badge: got %s, want 200", got)
		}
		if got := s.History()[0].Note; !strings.Contains(got, "R8") {
			t.Errorf("note: got %q, want one that cites R8", got)
		}
		if got := c.push(`{"aps":{}}`); got != "200" {
			t.Errorf("empty alert: got %s, want 200", got)
		}
		if got := s.History()[1].Note; !strings.Contains(got, "R8") {
			t.Errorf("note: got %q, want one that cites R8", got)
		}
	})
}

// TestTooManyPushes floods one device (rule R16).
func TestTooManyPushes(t *testing.T) {
	fixture()
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t, nil)
		defer s.Close()
		c := trusted(t, s)
		defer c.close()
		for i := range 9 {
			if got := c.push(badgeOf3); got != "200" {
				t.Fatalf("push %d of this second: got %s, want 200", i+2, got)
			}
		}
		if got := c.push(badgeOf3); got != "429 TooManyRequests" {
			t.Errorf("push 11 of this second: got %s, want 429", got)
		}
		time.Sleep(time.Second)
		if got := c.push(badgeOf3); got != "200" {
			t.Errorf("push of the next second: got %s, want 200", got)
		}
		if err := s.SetFaults(Faults{Latency: Latency{Min: time.Second}}); err != nil {
			t.Fatal(err)
		}
		first, second, third := c.send(badgeOf3), c.send(badgeOf3), c.send(badgeOf3)
		for _, id := range []uint32{first, second} {
			if a := c.wait(id); a.status != "200" {
				t.Errorf("concurrent push: got %s, want 200", a.status)
			}
		}
		if a := c.wait(third); a.status != "429" {
			t.Errorf("third concurrent push: got %s, want 429", a.status)
		}
		if got := s.ClientFaults()[ClientTwoInFlight]; got != 2 {
			t.Errorf("two in flight: counted %d, want 2", got)
		}
	})
}

func TestDeadDevices(t *testing.T) {
	fixture()
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t, nil)
		defer s.Close()
		c := trusted(t, s)
		defer c.close()
		at := time.Now().Add(-time.Minute)
		s.Unregister(phone(1), at)
		for i, want := range []int{0, 0, 1} {
			a := c.wait(c.send(badgeOf3))
			if want := `{"reason":"Unregistered","timestamp":` + formatInt(at.UnixMilli()) + `}`; a.body != want {
				t.Errorf("body: got %s, want %s", a.body, want)
			}
			if got := s.ClientFaults()[ClientDeadDevice]; got != want {
				t.Errorf("after push %d: counted %d pushes to dead devices, want %d", i, got, want)
			}
			time.Sleep(deadGrace / 2 * time.Duration(i+1))
		}
		s.RegisterDevice(phone(1), topic, Production, Meta{})
		if got := c.push(badgeOf3); got != "200" {
			t.Errorf("registered again: got %s, want 200", got)
		}
	})
}

func TestUnregisterDelayIsFuzzy(t *testing.T) {
	fixture()
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t, func(c *Config) { c.UnregisterDelay = time.Hour })
		defer s.Close()
		c := trusted(t, s)
		defer c.close()
		s.Unregister(phone(1), time.Now())
		if got := c.push(badgeOf3); got != "200" {
			t.Errorf("at once: got %s, want 200", got)
		}
		time.Sleep(59 * time.Minute)
		c.token = providerTokenAt(time.Now())
		time.Sleep(time.Minute)
		if got := c.push(badgeOf3); got != "410 Unregistered" {
			t.Errorf("an hour later: got %s, want 410", got)
		}
	})
}

// TestStoreAndForward follows a device that is off line (rule D1).
func TestStoreAndForward(t *testing.T) {
	fixture()
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t, nil)
		defer s.Close()
		var mu sync.Mutex // watchers run on the goroutine of the change
		var seen []uint32
		cancel := s.Watch(func(d Device) {
			mu.Lock()
			seen = append(seen, d.Badge)
			mu.Unlock()
		})
		defer cancel()
		c := trusted(t, s)
		defer c.close()
		s.SetOnline(phone(1), false)
		c.push(`{"aps":{"badge":4}}`)
		c.push(`{"aps":{"badge":5}}`)
		if d, _ := s.Device(phone(1)); d.Badge != 3 || !d.Waiting {
			t.Errorf("off line: got badge %d, waiting %v; want 3 and one waiting", d.Badge, d.Waiting)
		}
		s.SetOnline(phone(1), true)
		if d, _ := s.Device(phone(1)); d.Badge != 5 || d.Waiting || d.Shown != 2 {
			t.Errorf("on line again: got badge %d after %d shown, want 5, the newest, after 2", d.Badge, d.Shown)
		}
		s.SetOnline(phone(1), false)
		c.push(`{"aps":{"badge":6}}`, "apns-expiration", "0")
		if d, _ := s.Device(phone(1)); d.Waiting {
			t.Error("a push that expires at once is stored")
		}
		c.push(`{"aps":{"badge":7}}`, "apns-expiration", formatInt(time.Now().Add(time.Minute).Unix()))
		time.Sleep(2 * time.Minute)
		s.SetOnline(phone(1), true)
		if d, _ := s.Device(phone(1)); d.Badge != 5 {
			t.Errorf("after expiry: got badge %d, want 5", d.Badge)
		}
		synctest.Wait()
		if len(seen) == 0 || seen[0] != 3 {
			t.Errorf("watched: got %v, want the first badge first", seen)
		}
	})
}

func TestUnknownDevicesAccepted(t *testing.T) {
	fixture()
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t, func(c *Config) { c.AcceptUnknownDevices = true })
		defer s.Close()
		c := connect(t, s, nil)
		defer c.close()
		if got := c.push(badgeOf3, ":path", "/3/device/"+phone(8).Hex()); got != "200" {
			t.Errorf("push: got %s, want 200", got)
		}
		if d, ok := s.Device(phone(8)); !ok || d.Badge != 3 || d.Topic != topic {
			t.Errorf("device: got %+v, want one of topic %s with badge 3", d, topic)
		}
	})
}

func TestScripts(t *testing.T) {
	fixture()
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t, nil)
		defer s.Close()
		c := trusted(t, s)
		defer c.close()
		s.Next(Answer{Status: 503, Reason: "Shutdown", RetryAfter: 7 * time.Second}, Answer{})
		s.NextFor(phone(1), Answer{Status: 400, Body: "not json"})
		if got := c.push(badgeOf3); got != "400 not json" {
			t.Errorf("for the device: got %s, want its script first", got)
		}
		a := c.wait(c.send(badgeOf3))
		if a.status != "503" || a.fields["retry-after"] != "7" {
			t.Errorf("for all: got %s, retry after %q; want 503 and 7", a.status, a.fields["retry-after"])
		}
		if got := c.push(badgeOf3); got != "200" {
			t.Errorf("empty script: got %s, want the rules' 200", got)
		}
		if got := s.Scripted(); got != 0 {
			t.Errorf("scripts left: got %d, want 0", got)
		}
		if d, _ := s.Device(phone(1)); d.Accepted != 2 {
			t.Errorf("accepted: got %d, want 2", d.Accepted)
		}
		var none apns.DeviceToken
		s.NextFor(none, Answer{})
		s.ClearScripts()
		if got := s.Scripted(); got != 0 {
			t.Errorf("scripts after clearing: got %d, want 0", got)
		}
	})
}

// TestBadgeInOtherForms shows a device, which shows 3, payloads that APNs takes
// and that change its badge or do not.
func TestBadgeInOtherForms(t *testing.T) {
	fixture()
	for payload, want := range map[string]uint32{
		`{"aps":{"badge":7}}`:                       7,
		`{"aps":{"badge":0}}`:                       0,
		`{"aps":{"badge":-0}}`:                      0,
		`{"aps":{"badge":7.0}}`:                     7,
		`{"aps":{"badge":0.7e1}}`:                   7,
		`{"aps":{"badge":2147483647}}`:              2147483647,
		` { "aps" : { "badge" : 7 } } `:             7,
		`{"\u0061ps":{"badge":7}}`:                  7,
		`{"aps":{"badge":7,"alert":"x"},"badge":9}`: 7,
		`{"APS":{"BADGE":7}}`:                       3,
		`{"aps":{"Badge":7}}`:                       3,
		`{"Aps":{"badge":7}}`:                       3,
		`{"aps":{"badge":5},"APS":{"badge":7}}`:     5,
		`{"aps":{"badge":"9"}}`:                     3,
		`{"aps":{"badge":7.5}}`:                     3,
		`{"aps":{"badge":-1}}`:                      3,
		`{"aps":{"badge":2147483648}}`:              3,
		`{"aps":{"badge":1e400}}`:                   3,
		`{"aps":{"badge":null}}`:                    3,
		`{"aps":{"badge":true}}`:                    3,
		`{"aps":{"badge":[7]}}`:                     3,
		`{"aps":{"badge":{"count":7}}}`:             3,
		`{"aps":{"badge":7,"badge":8}}`:             3,
		`{"aps":{"badge":7},"aps":{"badge":8}}`:     3,
		`{"aps":[{"badge":7}]}`:                     3,
		`{"aps":null}`:                              3,
		`{"badge":7}`:                               3,
		`{}`:                                        3,
		`{"aps":{"alert":{"badge":7},"sound":"x"}}`: 3,
	} {
		synctest.Test(t, func(t *testing.T) {
			s := newSim(t, nil)
			defer s.Close()
			c := trusted(t, s)
			defer c.close()
			if got := c.push(payload); got != "200" {
				t.Errorf("%s: got %s, want 200", payload, got)
			}
			if d, _ := s.Device(phone(1)); d.Badge != want {
				t.Errorf("%s: the device shows %d, want %d", payload, d.Badge, want)
			}
			said := s.History()[1].Note != ""
			if unusual := want == 3 && !strings.Contains(payload, "alert"); said != unusual {
				t.Errorf("%s: note %q, want one: %v", payload, s.History()[1].Note, unusual)
			}
		})
	}
}

// TestBadgeOfOtherPushTypes holds that only alerts change the badge (rule R8).
func TestBadgeOfOtherPushTypes(t *testing.T) {
	fixture()
	for pushType, suffix := range topicSuffixes {
		synctest.Test(t, func(t *testing.T) {
			s := newSim(t, nil)
			defer s.Close()
			c := trusted(t, s)
			defer c.close()
			want := uint32(3)
			if pushType == "alert" {
				want = 7
			}
			for _, payload := range []string{`{"aps":{"badge":7}}`, `{"aps":{"badge":7},"x":1}`} {
				if got := c.push(payload, "apns-push-type", pushType, "apns-topic", topic+suffix, "apns-priority", "5"); got != "200" {
					t.Errorf("%s: got %s, want 200", pushType, got)
				}
				if d, _ := s.Device(phone(1)); d.Badge != want {
					t.Errorf("%s: the device shows %d, want %d", pushType, d.Badge, want)
				}
			}
		})
	}
}

func TestStrictID(t *testing.T) {
	fixture()
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t, func(c *Config) { c.Strict = true })
		defer s.Close()
		c := connect(t, s, nil)
		defer c.close()
		if got := c.push(badgeOf3, "apns-id", strings.ToUpper(pushID)); got != "400 BadMessageId" || broken(s) != RuleID {
			t.Errorf("id in upper case: got %s by rule %s, want 400 BadMessageId by R3", got, broken(s))
		}
	})
}
