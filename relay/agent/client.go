package agent

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"
	"time"

	badgerelayv1 "badgerelay/proto/badgerelay/v1"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// ErrClosed: the Client was closed.
var ErrClosed = errors.New("client is closed")

// Client makes single calls to a relay. A call that finds a relay unavailable, or
// not connected after its share of the time, goes to the next address; a refused
// token is replaced once. All methods are
// safe for concurrent use, and bounded by their ctx alone. A refusal by the
// relay is an error that Explain reads.
type Client struct {
	cfg    Config
	tokens *tokens

	mu     sync.Mutex // guards what follows
	conns  []*grpc.ClientConn
	at     int // the address that worked last
	closed bool
}

// NewClient returns a Client that connects when it is first used. Of cfg it
// reads what concerns connections, tokens and the agent's name.
func NewClient(cfg Config) (*Client, error) {
	if err := cfg.validateClient(); err != nil {
		return nil, fmt.Errorf("client configuration: %w", err)
	}
	return &Client{cfg: cfg, tokens: newTokens(cfg.Token, cfg.Plaintext), conns: make([]*grpc.ClientConn, len(cfg.Addresses))}, nil
}

// Close closes the connections; calls in progress fail, and later ones with
// ErrClosed.
func (c *Client) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	var errs []error
	for i, conn := range c.conns {
		if conn != nil {
			errs = append(errs, conn.Close())
			c.conns[i] = nil
		}
	}
	return errors.Join(errs...)
}

// RenewToken has a fresh token asked for before the next call, as when the key
// that signs tokens has changed. A Watch that goes on keeps its token.
func (c *Client) RenewToken() { c.tokens.discard() }

// Explain reads what a relay's refusal says: its kind, and the reason of the
// contract's list. err is one that a Client returned.
func Explain(err error) Failure { return classify("", err) }

// Event is one mailbox's present unread count, as Agent.Set takes it.
type Event struct {
	Mailbox        string
	Unread         uint32
	Epoch, Version uint64
	ObservedAt     time.Time // zero: when the relay receives it
}

// Publish relays up to MaxBatch events in one call and returns a result for
// each, in their order. What had not settled when the call ran out of time is
// OutcomePending: send it again, because only a relay alone goes on trying.
func (c *Client) Publish(ctx context.Context, events []Event) ([]Result, error) {
	request := &badgerelayv1.PublishRequest{Agent: c.cfg.agent(), AgentId: c.cfg.AgentID, Events: make([]*badgerelayv1.Event, len(events))}
	results := make([]Result, len(events))
	for i, e := range events {
		request.Events[i] = &badgerelayv1.Event{Mailbox: e.Mailbox, UnreadCount: e.Unread, Epoch: e.Epoch, Version: e.Version}
		if !e.ObservedAt.IsZero() {
			request.Events[i].ObservedAt = timestamppb.New(e.ObservedAt)
		}
		results[i] = Result{Mailbox: e.Mailbox, Unread: e.Unread, Epoch: e.Epoch, Version: e.Version, Outcome: OutcomeUnknown}
	}
	response, err := call(ctx, c, func(ctx context.Context, conn *grpc.ClientConn) (*badgerelayv1.PublishResponse, error) {
		return badgerelayv1.NewRelayServiceClient(conn).Publish(ctx, request)
	})
	if err != nil {
		return nil, err
	}
	if n := len(response.GetOutcomes()); n != len(events) {
		return nil, &protocolError{fmt.Errorf("%d outcomes for %d events", n, len(events))}
	}
	for i, o := range response.GetOutcomes() {
		results[i].describe(o)
	}
	return results, nil
}

// Subscription is one device on one mailbox. Times are zero where the relay
// leaves them out.
type Subscription struct {
	Mailbox       string
	App           string // the app's name in the relay's configuration
	Device        DeviceToken
	CreatedAt     time.Time
	RegisteredAt  time.Time
	ExpiresAt     time.Time // zero: never
	RemovedAt     time.Time // zero: it is live
	RemovalReason string
	// OtherMailboxes are those of the organization that the device of the app is
	// on beside this one, in the order of their bytes: it shows the sum of all.
	OtherMailboxes []string
}

// Registration puts a device of an app on a mailbox.
type Registration struct {
	Mailbox string
	App     string // the app's name in the relay's configuration
	Device  DeviceToken
	// KeepOthers leaves the device on the organization's other mailboxes.
	// Otherwise one that is new on the mailbox leaves them.
	KeepOthers bool
	// ValidateOnly has nothing changed: the answer is as if it were.
	ValidateOnly bool
}

// Subscribed is what Subscribe did.
type Subscribed struct {
	Subscription  Subscription
	Created       bool     // false: it was renewed
	LeftMailboxes []string // the mailboxes that the device left for this one, in the order of their bytes
	// AppMisconfigured says that APNs refuses nearly all of the app's devices at
	// this relay, whosever they are: its operator has to act.
	AppMisconfigured bool
}

// Subscribe puts a device on a mailbox, or renews its registration.
func (c *Client) Subscribe(ctx context.Context, r Registration) (Subscribed, error) {
	request := &badgerelayv1.SubscribeRequest{Mailbox: r.Mailbox, App: r.App, DeviceToken: string(r.Device), KeepOthers: r.KeepOthers, ValidateOnly: r.ValidateOnly}
	response, err := call(ctx, c, func(ctx context.Context, conn *grpc.ClientConn) (*badgerelayv1.SubscribeResponse, error) {
		return badgerelayv1.NewSubscriptionServiceClient(conn).Subscribe(ctx, request)
	})
	if err != nil {
		return Subscribed{}, err
	}
	return Subscribed{
		Subscription: subscriptionFrom(response.GetSubscription()),
		Created:      response.GetCreated(), LeftMailboxes: response.GetLeftMailboxes(),
		AppMisconfigured: response.GetAppMisconfigured(),
	}, nil
}

// DeviceMailboxes is a device of an app with its whole list of mailboxes.
type DeviceMailboxes struct {
	App       string // the app's name in the relay's configuration
	Device    DeviceToken
	Mailboxes []string // up to 100, in any order; empty: the device leaves every mailbox

	ValidateOnly bool // as in Registration
}

// DeviceSet is what SetDevice did. Each mailbox is in one of the lists, which are
// in the order of their bytes.
type DeviceSet struct {
	Added, Removed []string
	Kept           []string  // renewed
	ExpiresAt      time.Time // when the subscriptions end without renewal; zero: never
	// AppMisconfigured is as in Subscribed.
	AppMisconfigured bool
}

// SetDevice declares all mailboxes of the organization that a device of an app
// shows. It may be repeated; after an error nothing of it was done, unless the
// answer was lost.
func (c *Client) SetDevice(ctx context.Context, d DeviceMailboxes) (DeviceSet, error) {
	request := &badgerelayv1.SetDeviceRequest{App: d.App, DeviceToken: string(d.Device), Mailboxes: d.Mailboxes, ValidateOnly: d.ValidateOnly}
	response, err := call(ctx, c, func(ctx context.Context, conn *grpc.ClientConn) (*badgerelayv1.SetDeviceResponse, error) {
		return badgerelayv1.NewSubscriptionServiceClient(conn).SetDevice(ctx, request)
	})
	if err != nil {
		return DeviceSet{}, err
	}
	return DeviceSet{
		Added: response.GetAdded(), Removed: response.GetRemoved(), Kept: response.GetKept(),
		ExpiresAt: timeFrom(response.GetExpiresAt()), AppMisconfigured: response.GetAppMisconfigured(),
	}, nil
}

// Unsubscribe takes a device off a mailbox, and reports whether it was on it. It may be
// repeated. KeepOthers says nothing here.
func (c *Client) Unsubscribe(ctx context.Context, r Registration) (removed bool, err error) {
	request := &badgerelayv1.UnsubscribeRequest{Mailbox: r.Mailbox, App: r.App, DeviceToken: string(r.Device), ValidateOnly: r.ValidateOnly}
	_, err = call(ctx, c, func(ctx context.Context, conn *grpc.ClientConn) (*badgerelayv1.UnsubscribeResponse, error) {
		return badgerelayv1.NewSubscriptionServiceClient(conn).Unsubscribe(ctx, request)
	})
	if Explain(err).Reason == "SUBSCRIPTION_NOT_FOUND" {
		return false, nil
	}
	return err == nil, err
}

// Filter chooses what List lists.
type Filter struct {
	Mailbox  string // empty: all
	Removed  bool   // those that APNs or their lifetime ended, instead of the live ones
	PageSize uint32 // 1 to 1000 a call; 0: 100
}

// List yields the organization's subscriptions, ordered by mailbox, app and
// device, and asks for the next page when it is needed. An error ends it.
func (c *Client) List(ctx context.Context, filter Filter) iter.Seq2[Subscription, error] {
	return func(yield func(Subscription, error) bool) {
		for token := ""; ; {
			page, next, err := c.Page(ctx, filter, token)
			if err != nil {
				yield(Subscription{}, err)
				return
			}
			for _, s := range page {
				if !yield(s, nil) {
					return
				}
			}
			if token = next; token == "" {
				return
			}
		}
	}
}

// Page returns one page of what List yields, and the token of the next; empty
// after the last. An empty token asks for the first.
func (c *Client) Page(ctx context.Context, filter Filter, token string) (page []Subscription, next string, err error) {
	request := &badgerelayv1.ListSubscriptionsRequest{
		Mailbox: filter.Mailbox, PageSize: filter.PageSize, Removed: filter.Removed, PageToken: token,
	}
	response, err := call(ctx, c, func(ctx context.Context, conn *grpc.ClientConn) (*badgerelayv1.ListSubscriptionsResponse, error) {
		return badgerelayv1.NewSubscriptionServiceClient(conn).ListSubscriptions(ctx, request)
	})
	if err != nil {
		return nil, "", err
	}
	for _, s := range response.GetSubscriptions() {
		page = append(page, subscriptionFrom(s))
	}
	return page, response.GetNextPageToken(), nil
}

func subscriptionFrom(s *badgerelayv1.Subscription) Subscription {
	return Subscription{
		Mailbox: s.GetMailbox(), App: s.GetApp(), Device: DeviceToken(s.GetDeviceToken()),
		CreatedAt: timeFrom(s.GetCreatedAt()), RegisteredAt: timeFrom(s.GetRegisteredAt()),
		ExpiresAt: timeFrom(s.GetExpiresAt()), RemovedAt: timeFrom(s.GetRemovedAt()), RemovalReason: s.GetRemovalReason(),
		OtherMailboxes: s.GetOtherMailboxes(),
	}
}

func timeFrom(t *timestamppb.Timestamp) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.AsTime()
}

// call makes one call, at each address in turn while relays are unavailable.
func call[T any](ctx context.Context, c *Client, do func(context.Context, *grpc.ClientConn) (T, error)) (answer T, err error) {
	renewed := false
	for tried := 0; tried < len(c.cfg.Addresses); {
		token, err := c.tokens.get(ctx)
		if err != nil {
			return answer, err
		}
		conn, at, err := c.conn()
		if err != nil {
			return answer, err
		}
		if left := len(c.cfg.Addresses) - tried; left > 1 && !connects(ctx, conn, left) {
			tried++
			c.leave(at)
			continue
		}
		answer, err = do(ctx, conn)
		switch {
		case err == nil:
			return answer, nil
		case status.Code(err) == codes.Unauthenticated && !renewed:
			renewed = true
			c.tokens.reject(token.token)
		case status.Code(err) == codes.Unavailable && ctx.Err() == nil && tried+1 < len(c.cfg.Addresses):
			tried++
			c.leave(at)
		default:
			return answer, err
		}
	}
	return answer, err
}

// connects waits for a connection, for one address' share of ctx's time where so many are
// left. It reports false where the relay says nothing until then; a connection that has
// failed is the call's to tell.
func connects(ctx context.Context, conn *grpc.ClientConn, left int) bool {
	deadline, ok := ctx.Deadline()
	if !ok {
		return true // gRPC gives it up by itself
	}
	share, cancel := context.WithTimeout(ctx, time.Until(deadline)/time.Duration(left))
	defer cancel()
	conn.Connect()
	for state := conn.GetState(); state == connectivity.Idle || state == connectivity.Connecting; state = conn.GetState() {
		if !conn.WaitForStateChange(share, state) {
			return false
		}
	}
	return true
}

// conn returns the connection to the address that worked last.
func (c *Client) conn() (*grpc.ClientConn, int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	at := c.at
	if c.closed {
		return nil, at, ErrClosed
	}
	if c.conns[at] == nil {
		// NewClient does no I/O, so that holding the lock costs nobody time.
		conn, err := c.cfg.dial(c.cfg.Addresses[at], c.tokens)
		if err != nil {
			return nil, at, fmt.Errorf("relay address %q: %w", c.cfg.Addresses[at], err)
		}
		c.conns[at] = conn
	}
	return c.conns[at], at, nil
}

// leave makes the next address the current one, unless another call did.
func (c *Client) leave(at int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.at == at {
		c.at = (at + 1) % len(c.conns)
	}
}
