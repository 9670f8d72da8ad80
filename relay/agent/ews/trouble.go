package ews

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"badgerelay/relay/agent/internal/backoff"
)

// trouble is what is wrong with the server as a whole. Its value is the metric's.
type trouble uint8

const (
	troubleNone        trouble = iota
	troubleUnreachable         // no connection, no TLS, or no answer
	troubleRefused             // it refuses the credentials
	troubleBusy                // it asks to be left alone
)

// How long the server is left alone, doubled up to the last and jittered. Ours:
// a restart costs a badge less than a second, a wrong password does not lock
// the account.
const (
	unreachableMin  = 200 * time.Millisecond
	unreachableMax  = 30 * time.Second
	unauthorizedMin = 10 * time.Second
	unauthorizedMax = 5 * time.Minute
	// busyUnsaid is how long a busy server is left alone that names no time.
	busyUnsaid = 5 * time.Second
	// inARow is how many different mailboxes must fail, and none be answered,
	// before the server seems to be in trouble.
	inARow = 3
)

// gate holds requests back while the server is in trouble: one at a time tries,
// after a pause. It is safe for concurrent use.
type gate struct {
	mu      sync.Mutex // guards what follows
	trouble trouble
	detail  string
	times   int // in a row, of that trouble
	until   time.Time
	trying  bool                // one tries
	row     map[string]struct{} // mailboxes that failed since one was answered
	turned  chan struct{}       // closed, and made anew, when something has changed
}

func newGate() *gate {
	return &gate{row: make(map[string]struct{}), turned: make(chan struct{})}
}

// enter waits until the server may be asked. Each nil has to be followed by one
// of answered, failed, close and leave.
func (g *gate) enter(ctx context.Context) error {
	for ctx.Err() == nil {
		g.mu.Lock()
		wait, turned := time.Until(g.until), g.turned
		if wait <= 0 && (g.trouble == troubleNone || g.trouble == troubleBusy || !g.trying) {
			g.trying = g.trouble != troubleNone
			g.mu.Unlock()
			return nil
		}
		g.mu.Unlock()
		var timer <-chan time.Time
		if wait > 0 {
			timer = time.After(wait)
		}
		select {
		case <-timer:
		case <-turned:
		case <-ctx.Done():
		}
	}
	return ctx.Err()
}

// closed says why the server is not to be asked now; nil: it may be.
func (g *gate) closed(now time.Time) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.trouble == troubleNone || !g.until.After(now) {
		return nil
	}
	return errors.New("the server is left alone for now: " + g.detail)
}

// answered: the server has answered. It says whether that ends a trouble.
func (g *gate) answered() (again bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if time.Now().Before(g.until) { // it was asked before the gate closed
		g.turn()
		return false
	}
	again = g.trouble != troubleNone
	g.trouble, g.times, g.detail = troubleNone, 0, ""
	clear(g.row)
	g.turn()
	return again
}

// failed: a mailbox could not be asked. Where several could not in a row, the
// server is to blame. It returns the pause, if there is one, and whether it is
// the first.
func (g *gate) failed(mailbox string, err error) (pause time.Duration, first bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.row[mailbox] = struct{}{}
	if len(g.row) < inARow && g.trouble == troubleNone && !isDial(err) {
		g.turn()
		return 0, false
	}
	return g.pause(troubleUnreachable, err.Error(), unreachableMin, unreachableMax)
}

// refused: the server does not let us in.
func (g *gate) refused(err error) (pause time.Duration, first bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.pause(troubleRefused, err.Error(), unauthorizedMin, unauthorizedMax)
}

// busy: the server asks to be left alone, for d; 0: it does not say how long. The
// time it names is not jittered: it has to be kept.
func (g *gate) busy(d time.Duration) (pause time.Duration, first bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	first = g.trouble != troubleBusy
	if g.trouble == troubleNone || first {
		g.trouble, g.times, g.detail = troubleBusy, 0, "it is busy and asks to be left alone"
	}
	g.times++
	if until := time.Now().Add(or(d, busyUnsaid)); until.After(g.until) {
		g.until = until
	}
	g.turn()
	return time.Until(g.until), first
}

// reopen lets the next one try at once: what was wrong may be mended.
func (g *gate) reopen() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.trouble == troubleRefused || g.trouble == troubleUnreachable {
		g.until, g.times = time.Time{}, 0
		g.turn()
	}
}

// leave ends a try that says nothing about the server.
func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.turn()
}

// pause closes the gate, for longer each time. The caller holds mu.
func (g *gate) pause(t trouble, detail string, least, most time.Duration) (time.Duration, bool) {
	if g.trouble == t && !g.trying {
		return time.Until(g.until), false // it was tried before the gate closed
	}
	if g.trouble != t {
		g.trouble, g.times = t, 0
	}
	d := backoff.Jittered(backoff.Doubled(g.times, least, most))
	g.times++
	g.detail = detail
	if until := time.Now().Add(d); until.After(g.until) {
		g.until = until
	}
	g.turn()
	return d, g.times == 1
}

// turn lets those who wait look again. The caller holds mu.
func (g *gate) turn() {
	g.trying = false
	close(g.turned)
	g.turned = make(chan struct{})
}

// state returns what is wrong with the server.
func (g *gate) state() (trouble, string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.trouble, g.detail
}

// isDial says whether there was no connection at all, which is no mailbox's
// fault.
func isDial(err error) bool {
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Op == "dial" || strings.Contains(err.Error(), "tls: ")
}

// The codes by which the server says what is to be done. Source: Exchange Web
// Services reference, ResponseCode (read 2026-11).
var (
	// absentCodes: there is no such mailbox here; another server may have it.
	absentCodes = []string{"ErrorNonExistentMailbox", "ErrorMailboxNotFound"}
	// mailboxCodes: this mailbox is not there, or not for us.
	mailboxCodes = []string{"ErrorNonExistentMailbox", "ErrorMailboxNotFound", "ErrorImpersonateUserDenied", "ErrorImpersonationDenied", "ErrorImpersonationFailed",
		"ErrorAccessDenied", "ErrorFolderNotFound", "ErrorItemNotFound", "ErrorAccountDisabled", "ErrorInvalidSmtpAddress", "ErrorMissingEmailAddress",
		"ErrorNonPrimarySmtpAddress", "ErrorAccountIsNotAMailbox", "ErrorUserWithoutFederatedProxyAddress", "ErrorADUnavailable"}
	// movedCodes: it is on another server than the one that answers.
	movedCodes = []string{"ErrorProxyRequestNotAllowed", "ErrorCrossSiteRequest", "ErrorProxiedSubscriptionCallFailure", "ErrorNoRespondingCASInDestinationSite"}
	// subscriptionCodes: subscriptions have ended.
	subscriptionCodes = []string{"ErrorSubscriptionNotFound", "ErrorInvalidSubscription", "ErrorExpiredSubscription", "ErrorSubscriptionUnsubscribed",
		"ErrorReadEventsFailed", "ErrorMissedNotificationEvents", "ErrorInvalidWatermark", "ErrorSubscriptionAccessDenied"}
	// busyCodes: it asks to be left alone.
	busyCodes = []string{"ErrorServerBusy", "ErrorTooManyRequests", "ErrorExceededConcurrency"}
)

const (
	codeConnections   = "ErrorExceededConnectionCount"
	codeSubscriptions = "ErrorExceededSubscriptionCount"
)

func isCode(err error, codes ...string) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && slices.Contains(codes, e.Code)
}

// isBusy says whether the server asks to be left alone.
func isBusy(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && (slices.Contains(busyCodes, e.Code) || e.BackOff > 0 || e.Code == "" && (e.Status == 503 || e.Status == 429))
}
