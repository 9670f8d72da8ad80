package agent

import (
	"context"
	"errors"
	"io"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	badgerelayv1 "badgerelay/proto/badgerelay/v1"
)

// send sends what is ready, and a fresh token in time, until the stream
// drains or ends. Only this goroutine sends on the stream.
func (s *stream) send() error {
	// The slot of the wake-up may have been emptied here for a count that the
	// next stream must send.
	defer notify(s.agent.set.wake)
	renew := time.NewTimer(renewIn(time.Until(s.bearer().expires)))
	defer renew.Stop()
	resend := time.NewTimer(time.Hour) // set below before it counts
	defer resend.Stop()
	early := time.NewTimer(earlyTime)
	defer early.Stop()
	allowed := time.Duration(0) // the settlement delay that the relay was told
	for {
		if delay := s.settlementDelay(); delay != allowed {
			allowed = delay
			if err := s.sendSettlementDelay(delay); err != nil {
				return ended(err)
			}
		}
		if next := s.agent.set.resendDue(time.Now()); !next.IsZero() {
			resend.Reset(time.Until(next))
		}
		if err := s.sendReady(); err != nil {
			return ended(err)
		}
		select {
		case <-s.agent.set.wake:
			s.gather()
		case <-resend.C:
		case <-early.C:
		case until := <-s.granted:
			renew.Reset(renewIn(time.Until(until)))
		case <-s.agent.tokenChanged:
			renew.Reset(0)
		case <-renew.C:
			next, err := s.renew()
			if err != nil {
				return ended(err)
			}
			renew.Reset(next)
		case <-s.draining:
			return ended(s.rpc.CloseSend())
		case <-s.ctx.Done():
			return nil
		}
	}
}

// earlyTime is how long a stream has no settlement delay after its beginning. Ours: what
// was sent again on it mostly settles in that time.
const earlyTime = 10 * time.Second

// settlementDelay is how long the relay may hold settlements back now: not at all while
// somebody waits for them.
func (s *stream) settlementDelay() time.Duration {
	if time.Since(s.opened) < earlyTime || s.agent.set.awaited() {
		return 0
	}
	return min(s.agent.cfg.SettlementDelay, s.maxSettlementDelay)
}

func (s *stream) sendSettlementDelay(d time.Duration) error {
	return s.rpc.Send(&badgerelayv1.StreamRequest{Message: &badgerelayv1.StreamRequest_SettlementDelay{
		SettlementDelay: &badgerelayv1.SettlementDelay{MaxDelay: durationpb.New(d)},
	}})
}

// sendReady sends batches until nothing is ready. It blocks while the relay
// reads slowly; newer counts replace those that wait meanwhile.
func (s *stream) sendReady() error {
	for {
		batch := s.agent.set.take(s.inFlight, s.max, time.Now())
		if batch == nil {
			return nil
		}
		s.agent.metrics.sent(len(batch.GetEvents()))
		done := s.agent.trace(s.ctx, batch)
		err := s.rpc.Send(&badgerelayv1.StreamRequest{Message: &badgerelayv1.StreamRequest_Batch{Batch: batch}})
		done()
		if err != nil {
			return err
		}
	}
}

// gather lets others join the first count of a batch.
func (s *stream) gather() {
	delay := s.agent.cfg.flushDelay()
	if delay == 0 || s.agent.set.readyCount() >= s.max {
		return
	}
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-s.agent.flush:
	case <-s.draining:
	case <-s.ctx.Done():
	}
}

// renew hands in a fresh token and returns when to think of the next. A source
// that has none is asked again: until the old one expires nothing is lost.
func (s *stream) renew() (time.Duration, error) {
	old := s.bearer()
	ctx, cancel := context.WithTimeout(s.ctx, s.agent.cfg.openTimeout())
	defer cancel()
	fresh, err := s.agent.tokens.renew(ctx, old.token)
	if err != nil || fresh.token == old.token {
		s.agent.log.Warn("no fresh token yet", "expires", old.expires, "error", err)
		return renewIn(time.Until(old.expires)), nil
	}
	message := &badgerelayv1.FreshToken{Token: fresh.token}
	err = s.rpc.Send(&badgerelayv1.StreamRequest{Message: &badgerelayv1.StreamRequest_FreshToken{FreshToken: message}})
	if err != nil {
		return 0, err
	}
	s.mu.Lock()
	s.token = fresh
	s.mu.Unlock()
	s.agent.metrics.renewed()
	return renewIn(time.Until(fresh.expires)), nil
}

// renewIn returns when to renew a token that is good for left: five minutes
// before it runs out, which is the clock skew a relay allows, or after four
// fifths of a short life. A source without a better token is thus asked more
// and more often, but not more often than every five seconds.
func renewIn(left time.Duration) time.Duration {
	return max(left-min(left/5, 5*time.Minute), 5*time.Second)
}

// ended hides the io.EOF of a stream that has ended: Recv knows why.
func ended(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}
