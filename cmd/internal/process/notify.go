package process

import (
	"cmp"
	"context"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// Times of ours.
const (
	sayTimeout = 100 * time.Millisecond // how long a manager whose socket is full is waited for
	sayAgain   = time.Second            // when what it did not take is said again
)

// Notifier tells the systemd that started this process how the daemon is: ready,
// reloading, stopping, and, while it is, alive (sd_notify(3), Type=notify and
// WatchdogSec). Started by anything else it does nothing. A manager that does not listen
// is not waited for. It is safe for concurrent use.
type Notifier struct {
	log *slog.Logger // of what could not be said

	mu   sync.Mutex // guards owed; one message at a time, for sayTimeout at most
	owed string     // the state that the manager did not take; empty: it knows
}

// Ready says that the daemon serves, or serves again after Reloading.
func (n *Notifier) Ready() { n.state(daemon.SdNotifyReady) }

// Reloading says that the daemon reads its configuration again; Ready ends it.
func (n *Notifier) Reloading() { n.state(daemon.SdNotifyReloading) }

// Stopping says that the daemon drains.
func (n *Notifier) Stopping() { n.state(daemon.SdNotifyStopping) }

// Watch says that the daemon is alive, twice in each interval of the watchdog,
// and again what the manager did not take, until ctx is done. alive is called
// each time: while it blocks nothing is said, and systemd starts the daemon anew.
// It returns nil.
func (n *Notifier) Watch(ctx context.Context, alive func()) error {
	interval, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		n.log.Warn("watchdog of the service manager not understood", "error", err)
	}
	again := time.NewTicker(sayAgain)
	defer again.Stop()
	var watchdog <-chan time.Time
	if interval > 0 {
		ticker := time.NewTicker(interval / 2)
		defer ticker.Stop()
		watchdog = ticker.C
		n.alive(alive)
	}
	for {
		select {
		case <-watchdog:
			n.alive(alive)
		case <-again.C:
			n.state("")
		case <-ctx.Done():
			return nil
		}
	}
}

func (n *Notifier) alive(alive func()) {
	alive()
	n.mu.Lock()
	defer n.mu.Unlock()
	n.say(daemon.SdNotifyWatchdog)
}

// state says how the daemon is, now or when the manager listens again; empty: what it
// did not take.
func (n *Notifier) state(state string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.owed = cmp.Or(state, n.owed)
	if n.owed != "" && n.say(n.owed) {
		n.owed = ""
	}
}

// say sends one message, and reports whether it was taken, or nobody wants it.
func (n *Notifier) say(state string) bool {
	err := send(os.Getenv("NOTIFY_SOCKET"), state)
	if err != nil {
		n.log.Warn("service manager not told", "state", state, "error", err)
	}
	return err == nil
}

// send is daemon.SdNotify with an end: that waits for as long as the socket is
// full.
func send(socket, state string) error {
	if socket == "" {
		return nil
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetWriteDeadline(time.Now().Add(sayTimeout)); err != nil {
		return err
	}
	_, err = conn.Write([]byte(state))
	return err
}
