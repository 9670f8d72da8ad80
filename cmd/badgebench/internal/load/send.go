package load

import (
	"context"
	"errors"
	"io"
	"time"

	"badgerelay/cmd/internal/rig/names"
	pb "badgerelay/proto/badgerelay/v1"
)

// send sends batches at the agent's pace until ctx is done or the stream ends.
func (a *stream) send(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		n, wait, err := a.turn(time.Now())
		if err != nil {
			return
		}
		if n > 0 {
			if err := a.sendBatch(n); err != nil {
				if !errors.Is(err, io.EOF) { // io.EOF: receive knows why
					a.fail(err)
				}
				return
			}
			continue
		}
		timer.Reset(wait)
		select {
		case <-a.wake:
		case <-timer.C:
		case <-ctx.Done():
			return
		}
	}
}

// turn takes sequence numbers for the next batch: n events, or none and how
// long to wait.
func (a *stream) turn(now time.Time) (n int, wait time.Duration, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	p := a.pace
	if a.idle = p == nil || p.left == 0; a.idle || a.err != nil {
		return 0, time.Hour, a.err
	}
	room := min(len(a.ring)-int(a.next-1-a.through), p.left) // an event that is late keeps its place
	if p.rate == 0 {
		n = min(a.config.Batch, room)
		if n == 0 || a.unsettled+n > a.config.Window {
			return 0, time.Hour, nil // a settlement wakes
		}
		a.take(n, func(int) time.Time { return now })
		return n, 0, nil
	}
	due := uint64(now.Sub(p.start).Seconds()*p.rate) + 1
	if now.Before(p.start) || due <= p.done {
		next := p.start.Add(time.Duration(float64(p.done) / p.rate * float64(time.Second)))
		return 0, max(next.Sub(now), tick), nil
	}
	n = min(int(due-p.done), a.config.Batch, room)
	first := p.done
	a.take(n, func(i int) time.Time {
		return p.start.Add(time.Duration(float64(first+uint64(i)) / p.rate * float64(time.Second)))
	})
	p.done += uint64(n)
	return n, tick, nil
}

// take makes the next n sequence numbers unsettled. mu must be held.
func (a *stream) take(n int, intended func(i int) time.Time) {
	for i := range n {
		a.ring[(a.next+uint64(i))&uint64(len(a.ring)-1)] = int64(intended(i).Sub(a.epoch))
	}
	a.next += uint64(n)
	a.pace.left -= n
	a.unsettled += n
	a.sent += uint64(n)
}

// sendBatch sends the n events whose numbers were taken last.
func (a *stream) sendBatch(n int) error {
	for _, e := range a.events[:n] {
		a.versions[a.at]++
		mailbox, version := a.first+a.at, a.versions[a.at]
		e.Mailbox, e.UnreadCount, e.Epoch, e.Version = names.Mailbox(mailbox), names.Unread(mailbox, version), 1, uint64(version)
		if a.at += a.stride; a.at >= len(a.versions) {
			a.at -= len(a.versions)
		}
	}
	return a.rpc.Send(&pb.StreamRequest{Message: &pb.StreamRequest_Batch{
		Batch: &pb.Batch{FirstSequence: a.next - uint64(n), Events: a.events[:n]},
	}})
}
