package simulation

import (
	"encoding/binary"
	"sync"
	"time"

	"badgerelay/apns"
	"badgerelay/apns/apnstest"
)

const (
	apnsTeam  = "TEAM000001"
	apnsKeyID = "KEY0000001"
)

// burst is how many requests of a connection a burst strikes. What would be left
// of a longer one would strike after the faults as well, each time that the
// relay's breaker lets a push try.
const burst = 1

// apnsService is the simulated APNs, on a host of its own, and what its devices
// have shown.
type apnsService struct {
	*apnstest.Simulator
	world *world

	mu    sync.Mutex // guards what follows
	shown map[apns.DeviceToken][]shownBadge
}

// shownBadge is what a device has shown since a time.
type shownBadge struct {
	at    time.Time
	badge uint32
}

func newAPNs(w *world) *apnsService {
	a := &apnsService{world: w, shown: map[apns.DeviceToken][]shownBadge{}}
	a.Simulator = must(apnstest.New(apnstest.Config{
		TeamKeys: []apnstest.TeamKey{{TeamID: apnsTeam, KeyID: apnsKeyID, Key: &keys().apns.PublicKey}},
		Topics:   []string{topic}, Authority: keys().authority, Certificate: &keys().server,
		ServerErrorWait: serverErrorWait, Seed: w.plan.Seed | 1, Logger: w.log.With("host", apnsHost),
		HistorySize: -1, Faults: apnstest.Faults{Burst: burst},
	}))
	a.Watch(a.changed)
	return a
}

// changed notes what a device shows.
func (a *apnsService) changed(d apnstest.Device) {
	now := time.Now()
	a.mu.Lock()
	defer a.mu.Unlock()
	shown := a.shown[d.Token]
	if n := len(shown); n > 0 && shown[n-1].badge == d.Badge {
		return
	}
	a.shown[d.Token] = append(shown, shownBadge{now, d.Badge})
	a.world.trace.add("device %s shows %d", d.Token.Hex()[56:], d.Badge)
}

// history returns what a device has shown.
func (a *apnsService) history(d apns.DeviceToken) []shownBadge {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.shown[d]
}

// deviceToken is the token of a device by its number.
func deviceToken(n int) apns.DeviceToken {
	var raw [32]byte
	binary.BigEndian.PutUint64(raw[24:], uint64(n)+1)
	return must(apns.DeviceTokenFromBytes(raw[:]))
}
