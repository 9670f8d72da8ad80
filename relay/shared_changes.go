package relay

import (
	"context"
	"slices"
	"sync/atomic"
)

// loadShared reads which devices the registry calls shared.
func (r *Relay) loadShared(ctx context.Context) error {
	err := r.subscriptions.SharedDevices(ctx, func(batch []DeviceKey) error {
		for _, key := range batch {
			if app := r.apps.named(key.App); app != nil {
				r.devices.noteShared(deviceKey{app, key.Device})
				r.devices.shareIfActive(deviceKey{app, key.Device})
			}
		}
		return nil
	})
	r.exchanger.hint.fill()
	return err
}

// DevicesShared tells the relay that devices have become shared, or are not any more. Each
// is exchanged, which says what it is: this relay may remember a count of a mailbox that
// nobody else does.
func (r *Relay) DevicesShared(keys []DeviceKey) {
	for _, key := range keys {
		if app := r.apps.named(key.App); app != nil {
			r.devices.noteShared(deviceKey{app, key.Device})
			r.devices.withShared(deviceKey{app, key.Device}, func(d *device) { d.touchFor(nil) })
		}
	}
}

// SumsChanged hints that sums of shared devices changed, at another relay or
// because an organization was disabled or enabled.
func (r *Relay) SumsChanged() { r.exchanger.hint.fill() }

// rereadShared has every shared device of an app exchanged; what it has at the start is
// read by the warm-up.
func (r *Relay) rereadShared(a *appState) {
	if r.running.Load() {
		a.readShared.Store(true)
		r.exchanger.readShared.fill()
	}
}

// runReadShared does what rereadShared asks for, until ctx is done.
func (e *exchanger) runReadShared(ctx context.Context) {
	r := e.relay
	asked := func(a *appState) *atomic.Bool { return &a.readShared }
	r.readForApps(ctx, "read shared devices", e.readShared, asked, func(apps map[string]bool) error {
		return r.subscriptions.SharedDevices(ctx, func(batch []DeviceKey) error {
			r.DevicesShared(slices.DeleteFunc(slices.Clone(batch), func(d DeviceKey) bool { return !apps[d.App] }))
			return nil
		})
	})
}
