// Package sdnotify tells systemd how a daemon is: ready, reloading, stopping,
// and, while it is, alive (sd_notify(3), Type=notify and WatchdogSec).
//
// Started by anything else, everything in it does nothing. It restarts nobody
// and knows no health but what it is handed.
package sdnotify

import (
	"context"
	"log/slog"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// Notifier speaks to the systemd that started this process. It is safe for
// concurrent use.
type Notifier struct{ log *slog.Logger }

// New returns a Notifier that logs what it could not say.
func New(log *slog.Logger) *Notifier { return &Notifier{log: log} }

// Ready says that the daemon serves, or serves again after Reloading.
func (n *Notifier) Ready() { n.say(daemon.SdNotifyReady) }

// Reloading says that the daemon reads its configuration again; Ready ends it.
func (n *Notifier) Reloading() { n.say(daemon.SdNotifyReloading) }

// Stopping says that the daemon drains.
func (n *Notifier) Stopping() { n.say(daemon.SdNotifyStopping) }

// Watch says that the daemon is alive, twice in each interval of the watchdog,
// until ctx is done. alive is called each time: while it blocks nothing is
// said, and systemd starts the daemon anew. Without a watchdog Watch only
// waits. It returns nil.
func (n *Notifier) Watch(ctx context.Context, alive func()) error {
	interval, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		n.log.Warn("watchdog of the service manager not understood", "error", err)
	}
	if interval <= 0 {
		<-ctx.Done()
		return nil
	}
	ticker := time.NewTicker(interval / 2)
	defer ticker.Stop()
	for {
		alive()
		n.say(daemon.SdNotifyWatchdog)
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil
		}
	}
}

func (n *Notifier) say(state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		n.log.Warn("service manager not told", "state", state, "error", err)
	}
}
