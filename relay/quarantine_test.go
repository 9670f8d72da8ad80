package relay

import (
	"testing"
	"time"

	"badgerelay/apns"
)

// refusalStep is one answer of APNs in the life of a subscription.
type refusalStep struct {
	at         time.Duration // since the first registration
	registered time.Duration // the last registration by then
	refusal    Refusal       // its times are filled in, GoneSince from goneSince
	goneSince  time.Duration // 0: not said
	want       Verdict
}

// TestJudge takes subscriptions through what APNs may say of their devices.
func TestJudge(t *testing.T) {
	const day = 24 * time.Hour
	bad := func(change func(*Refusal)) Refusal {
		f := Refusal{Reason: apns.ReasonBadDeviceToken, Generation: 1}
		if change != nil {
			change(&f)
		}
		return f
	}
	trusted := bad(func(f *Refusal) { f.Trusted = true })
	other := bad(func(f *Refusal) { f.Trusted, f.Generation = true, 2 })
	accepted := bad(func(f *Refusal) { f.Accepted = true })
	gone := Refusal{Reason: apns.ReasonUnregistered, Generation: 1}
	for name, life := range map[string][]refusalStep{
		"a small app whose only device is dead": {
			{at: time.Hour, refusal: bad(nil), want: RefusalHolds},
			{at: 2 * day, refusal: bad(nil), want: RefusalHolds},
			{at: 30 * day, refusal: bad(nil), want: RefusalHolds},
			{at: 30*day + time.Hour, refusal: bad(nil), want: RefusalRemoves},
		},
		"a dead device of an app that is well": {
			{at: 0, refusal: trusted, want: RefusalHolds},
			{at: day - probeSlack - 1, refusal: trusted, want: RefusalHolds},
			{at: day, refusal: trusted, want: RefusalRemoves},
		},
		"two refusals at once are one": {
			{at: 0, refusal: trusted, want: RefusalHolds},
			{at: refusalSpacing - 1, refusal: trusted, want: RefusalHolds},
			{at: 2 * day, refusal: trusted, want: RefusalRemoves}, // the second
		},
		"another generation begins anew": {
			{at: 0, refusal: trusted, want: RefusalHolds},
			{at: 2 * day, refusal: other, want: RefusalHolds},
			{at: 3*day - probeSlack - 1, refusal: other, want: RefusalHolds},
			{at: 3 * day, refusal: other, want: RefusalRemoves},
		},
		"a renewal every day does not save a dead device": {
			{at: time.Hour, refusal: trusted, want: RefusalHolds},
			{at: day + 2*time.Hour, registered: day + time.Hour, refusal: trusted, want: RefusalRemoves},
		},
		"a device that was accepted in this generation": {
			{at: time.Hour, refusal: accepted, want: RefusalRemoves},
		},
		"gone since after its registration": {
			{at: time.Hour, refusal: gone, goneSince: time.Minute, want: RefusalRemoves},
		},
		"gone since its registration": {
			{at: time.Hour, refusal: gone, goneSince: -1, want: RefusalHolds},
		},
		"gone since before its registration": {
			{at: 11 * time.Minute, refusal: gone, goneSince: -time.Hour, want: RefusalHolds},
			{at: 31 * time.Minute, refusal: gone, goneSince: -time.Hour, want: RefusalHolds},
			{at: 71 * time.Minute, refusal: gone, goneSince: -time.Hour, want: RefusalRemoves},
		},
		"gone, and nobody says since when": {
			{at: time.Minute, refusal: gone, want: RefusalHolds},
			{at: 21 * time.Minute, refusal: gone, want: RefusalHolds},
			{at: 61 * time.Minute, refusal: gone, want: RefusalRemoves},
		},
		"gone three times, and registered a moment ago": {
			{at: time.Minute, refusal: gone, want: RefusalHolds},
			{at: 21 * time.Minute, refusal: gone, want: RefusalHolds},
			{at: 61 * time.Minute, registered: 55 * time.Minute, refusal: gone, want: RefusalHolds},
			{at: 65 * time.Minute, registered: 55 * time.Minute, refusal: gone, want: RefusalRemoves},
		},
		"gone, renewed every day": {
			{at: time.Hour, refusal: gone, goneSince: -time.Hour, want: RefusalHolds},
			{at: day + time.Hour, registered: day, refusal: gone, goneSince: -time.Hour, want: RefusalHolds},
			{at: 2*day + time.Hour, registered: 2 * day, refusal: gone, goneSince: -time.Hour, want: RefusalRemoves},
		},
		"a bad token and a 410 are not added up": {
			{at: time.Hour, refusal: gone, want: RefusalHolds},
			{at: 2 * time.Hour, refusal: gone, want: RefusalHolds},
			{at: 3 * time.Hour, refusal: bad(nil), want: RefusalHolds},
			{at: 4 * time.Hour, refusal: gone, want: RefusalHolds},
		},
		"nothing is removed of an app in doubt": {
			{at: time.Hour, refusal: bad(func(f *Refusal) { f.Accepted, f.Doubtful = true, true }), want: RefusalHolds},
			{at: 40 * day, refusal: bad(func(f *Refusal) { f.Trusted, f.Doubtful = true, true }), want: RefusalHolds},
			{at: 41 * day, refusal: Refusal{Reason: apns.ReasonUnregistered, Generation: 1, Doubtful: true}, goneSince: day, want: RefusalHolds},
		},
		"a probe leaves nothing behind": {
			{at: time.Hour, refusal: bad(func(f *Refusal) { f.Device, f.Doubtful = apns.ImpossibleDevice(), true }), want: RefusalRemoves},
		},
	} {
		t.Run(name, func(t *testing.T) {
			start := time.Date(2026, 11, 28, 9, 0, 0, 0, time.UTC)
			var had *Quarantine
			for i, s := range life {
				f, registered := s.refusal, start.Add(s.registered)
				f.SentAt, f.Registered = start.Add(s.at), registered
				if s.goneSince != 0 {
					f.GoneSince = start.Add(s.goneSince)
				}
				got := f.Judge(had, registered, start.Add(s.at))
				if got.Verdict != s.want {
					t.Fatalf("step %d at %v: verdict %d, want %d; %+v", i, s.at, got.Verdict, s.want, got.Quarantine)
				}
				had = got.Quarantine
			}
		})
	}
}

// TestJudgeSparesNewerRegistrations: a refusal holds for the registration that
// the push was for.
func TestJudgeSparesNewerRegistrations(t *testing.T) {
	now := time.Now()
	had := &Quarantine{Generation: 1, Reason: "BadDeviceToken", Refusals: 7}
	f := Refusal{Reason: "Unregistered", Generation: 1, Registered: now, GoneSince: now.Add(time.Hour), SentAt: now.Add(time.Hour)}
	if got := f.Judge(had, now.Add(time.Millisecond), now.Add(2*time.Hour)); got.Verdict != RefusalSpares || got.Quarantine != had {
		t.Errorf("got %+v, want the newer registration spared", got)
	}
	if got := f.Judge(had, now, now.Add(2*time.Hour)); got.Verdict != RefusalRemoves {
		t.Errorf("got %+v, want this one removed", got)
	}
}

func TestNextProbe(t *testing.T) {
	at := time.Now()
	for _, test := range []struct {
		reason   apns.Reason
		refusals int
		want     time.Duration
	}{
		{"BadDeviceToken", 1, 24 * time.Hour},
		{"DeviceTokenNotForTopic", 9, 24 * time.Hour},
		{"Unregistered", 1, 20 * time.Minute},
		{"ExpiredToken", 2, 40 * time.Minute},
		{"Unregistered", 3, 40 * time.Minute}, // not removed: a young registration, or no budget
		{"Unregistered", 4, 24 * time.Hour},
	} {
		q := Quarantine{Reason: test.reason, Refusals: test.refusals, RefusedAt: at}
		if got := q.NextProbe().Sub(at); got != test.want {
			t.Errorf("%s, %d times: tried after %v, want %v", test.reason, test.refusals, got, test.want)
		}
	}
}

func TestQuarantineInForce(t *testing.T) {
	at := time.Now()
	q := &Quarantine{Generation: 1, Registered: at}
	for name, test := range map[string]struct {
		q          *Quarantine
		generation Generation
		registered time.Time
		want       bool
	}{
		"the same registration":     {q, 1, at, true},
		"registered anew":           {q, 1, at.Add(time.Millisecond), false},
		"another generation":        {q, 2, at, false},
		"nothing is remembered":     {nil, 1, at, false},
		"an older one, by a backup": {q, 1, at.Add(-time.Hour), true},
	} {
		if got := test.q.InForce(test.generation, test.registered); got != test.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

// TestBudget wants no hour, wherever it begins, with more than the budget.
func TestBudget(t *testing.T) {
	start := time.Now()
	for _, test := range []struct{ live, want int }{
		{0, 5}, {1, 5}, {100, 5}, {101, 6}, {3000, 150}, {10_000_000, 500_000},
	} {
		var b Budget
		b.Renew(test.live)
		if b.Allowed != test.want {
			t.Errorf("%d live: %d may end, want %d", test.live, b.Allowed, test.want)
		}
	}
	var b Budget
	var ended []time.Time
	for minute := range 10 * 60 { // somebody dies every minute
		now := start.Add(time.Duration(minute) * time.Minute)
		if b.Renewed(now) {
			b.Renew(200)
		}
		if b.Take(1, now) == 1 {
			ended = append(ended, now)
		}
	}
	for i := 10; i < len(ended); i++ {
		if ended[i].Sub(ended[i-10]) < time.Hour {
			t.Fatalf("11 ended within %v", ended[i].Sub(ended[i-10]))
		}
	}
	if len(ended) < 80 {
		t.Errorf("%d of 600 ended in ten hours, want most of ten budgets of 10", len(ended))
	}
	// The clock was years ahead, and is set right: the pause is an hour from then.
	b = Budget{Allowed: 10, Used: 10, LastAt: start.Add(10 * 365 * 24 * time.Hour)}
	b.Take(1, start)
	if b.Renewed(start.Add(time.Hour - 1)) {
		t.Error("the budget is renewed at once when the clock is set back")
	}
	if !b.Renewed(start.Add(time.Hour)) {
		t.Error("the budget waits for a time that was never to be")
	}
}

func TestMisconfigured(t *testing.T) {
	for name, test := range map[string]struct {
		orgs    []deviceCounts
		unknown deviceCounts
		want    bool
	}{
		"nothing happened":                        {nil, deviceCounts{}, false},
		"a wrong environment":                     {[]deviceCounts{{0, 3000}}, deviceCounts{}, true},
		"of several organizations":                {[]deviceCounts{{0, 3000}, {0, 1}, {0, 40}}, deviceCounts{}, true},
		"too few to say":                          {[]deviceCounts{{0, 19}}, deviceCounts{}, false},
		"enough":                                  {[]deviceCounts{{0, 20}}, deviceCounts{}, true},
		"a small app whose only devices are dead": {[]deviceCounts{{0, 5}}, deviceCounts{}, false},
		"the developers' phones are accepted":     {[]deviceCounts{{4, 3000}}, deviceCounts{}, true},
		"in an organization of their own":         {[]deviceCounts{{4, 0}, {0, 3000}, {0, 2}}, deviceCounts{}, true},
		"one in twenty is accepted":               {[]deviceCounts{{5, 100}}, deviceCounts{}, false},
		"less":                                    {[]deviceCounts{{4, 100}}, deviceCounts{}, true},
		"bogus tokens of one organization":        {[]deviceCounts{{0, 3000}, {50, 1}}, deviceCounts{}, false},
		"the others have not one refusal":         {[]deviceCounts{{0, 3000}, {1, 0}}, deviceCounts{}, false},
		"an idle organization beside":             {[]deviceCounts{{0, 3000}, {0, 0}}, deviceCounts{}, true},
		"an app that was well before the start":   {[]deviceCounts{{0, 300}, {0, 200}}, deviceCounts{accepted: 10_000}, false},
	} {
		if got := misconfigured(test.orgs, test.unknown); got != test.want {
			t.Errorf("%s: %t, want %t", name, got, test.want)
		}
	}
}

func TestLatelyForgets(t *testing.T) {
	var l lately
	l.note(deviceCounts{accepted: 1000}, 0, 0)
	l.note(deviceCounts{refused: 20}, 0, int64(latelyPeriod))
	if l.failing() {
		t.Error("a thousand accepted half an hour ago are forgotten")
	}
	l.note(deviceCounts{refused: 1}, 0, int64(2*latelyPeriod))
	if !l.failing() {
		t.Error("21 refused and none accepted for half an hour is no failure")
	}
	l.note(deviceCounts{}, 0, int64(10*latelyPeriod))
	if l.failing() {
		t.Error("what was hours ago counts")
	}
	l.note(deviceCounts{}, 20, int64(10*latelyPeriod))
	if !l.allSentAway() {
		t.Error("a GOAWAY for devices counts for nothing")
	}
	l.note(deviceCounts{refused: 1}, 0, int64(10*latelyPeriod))
	if l.allSentAway() {
		t.Error("APNs answers, and what it says counts")
	}
}
