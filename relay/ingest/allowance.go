package ingest

import "time"

// What a connection may ask of the relay, in microseconds of a core, about: see
// weight. All are ours. A probe of health, each second, asks for 60 a second; a
// client that lists all there is by reflection, for some thousands once; an agent
// that begins with 250 calls at once, each with a token of 8 KiB, for 53,000, before
// the first token is accepted.
var (
	// modest is what every connection may ask for, however its address behaves.
	modest = rate{100, 2000}
	// stranger is what a connection may ask for until a token was accepted on it,
	// and neighbourhood what all such of an address may: a tenth of a second of a
	// core at once; a hundredth of a core, and two.
	stranger      = rate{10_000, 100_000}
	neighbourhood = rate{20_000, 100_000}
	// odd is for those on which one was, in points: 1,000 resets or SETTINGS a
	// second, or 20,000 WINDOW_UPDATEs, which real clients have too.
	odd = rate{20_000, 200_000}
)

const (
	// slowTime is how long an address is slowed after one of its connections was
	// ended for what it asked.
	slowTime = time.Minute
	// slowPart is by what a connection's first burst is divided meanwhile.
	slowPart = 20
	// slowHandshakes is how many connections a second may begin from it, and one
	// more for every ten with an accepted token that are open: behind an address
	// that many share, a stranger holds up few.
	slowHandshakes = 4
	// slowWait is how long one waits for its turn at most: half of what gRPC
	// gives to TLS.
	slowWait = 5 * time.Second
	// workVisit is what a connection costs on which no token was accepted: TLS.
	workVisit = 2000
)

// allowance is what a connection may still ask for. It belongs to whoever reads
// from the connection.
type allowance struct {
	modest, own, odd bucket
	settings         perMinute
}

// refuse takes what has come out of the allowance of its connection and, where
// that was a stranger's, of its neighbourhood. It returns why it is too much;
// empty: it is not.
func (a *allowance) refuse(w weight, conn *limitedConn, at time.Duration, now time.Time) (reason string) {
	for range w.settings {
		a.settings.add(at)
	}
	part := 1.
	if conn.near.slowed(now) {
		part = slowPart
	}
	switch {
	case a.settings.count > maxSettings:
		return refusedSettings
	case conn.accepted.Load():
		if !a.odd.take(rate{odd.perSecond, odd.burst / part}, float64(w.odd), now) {
			return refusedFrames
		}
	case a.modest.take(modest, float64(w.work), now):
	case !a.own.take(rate{stranger.perSecond, stranger.burst / part}, float64(w.work), now),
		!conn.spend(w.work, now):
		return refusedStranger
	}
	return ""
}
