package site

import (
	"context"
	"fmt"
	"os"
	"sync"
	"time"

	"badgerelay/auth"
	"badgerelay/auth/certs"
	"badgerelay/cmd/internal/child"
	"badgerelay/cmd/internal/rig"
	"badgerelay/cmd/internal/rig/names"
	"badgerelay/relay/agent"
)

// RoleName is the role's name on the command line.
const RoleName = "site"

// backoff suits a relay that is back within a second.
const backoff = 100 * time.Millisecond

// Config says where the relay is and who speaks.
type Config struct {
	Name      string
	Addresses []string // of the relays
	CAFile    string   // that signed its certificate, PEM
	Store     string   // the directory of the organization's certificates

	Organization string
	Number       int // of the organization
	First        int // number of its first mailbox

	// Watch has the site send the present count of each mailbox that the relay
	// tells it, as an agent's daemon does. Without it nothing is sent again but
	// what the library holds.
	Watch bool
}

// Count is the present count of a mailbox.
type Count struct {
	Mailbox int
	Version uint32
}

// Subscription asks to put a device on a mailbox.
type Subscription struct {
	Device, Mailbox int
	Timeout         time.Duration
}

// State is what the site has done so far.
type State struct {
	Ledger    agent.Ledger
	Connected bool
}

// Role is the role's side. Its methods are called by net/rpc.
type Role struct {
	config Config
	tokens tokens
	agent  *agent.Agent
	client *agent.Client
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu      sync.Mutex // guards what follows
	present map[string]Count
}

// Run serves a parent until it lets go.
func Run(in, out *os.File) error {
	r := &Role{}
	err := child.Serve(in, out, r)
	if r.cancel != nil {
		r.cancel()
		r.wg.Wait()
		_ = r.client.Close() // nothing is under way
	}
	return err
}

// Start starts the agent. It is the first call, and made once.
func (r *Role) Start(c Config, _ *struct{}) (err error) {
	tlsConfig, err := rig.AgentTLS(c.CAFile)
	if err != nil {
		return err
	}
	r.config, r.tokens.organization = c, c.Organization
	if r.tokens.store, err = certs.OpenStore(c.Store); err != nil {
		return err
	}
	config := agent.Config{
		Addresses: c.Addresses, Token: &r.tokens, AgentID: c.Name, Name: c.Name, BackoffMin: backoff, BackoffMax: 4 * backoff, RefusedDelay: backoff,
		TLS: tlsConfig, SettlementDelay: 5 * time.Second, // as badgeagent does
	}
	if r.agent, err = agent.New(config); err != nil {
		return err
	}
	if r.client, err = agent.NewClient(config); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel = cancel
	r.present = map[string]Count{}
	r.wg.Go(func() { _ = r.agent.Run(ctx) }) // it returns when ctx ends, and never fails
	if c.Watch {
		r.wg.Go(func() { _ = r.client.Watch(ctx, agent.Watcher{Subscribed: r.again}) }) // as above
	}
	return nil
}

// Set says what mailboxes hold now.
func (r *Role) Set(counts []Count, _ *struct{}) error {
	for _, c := range counts {
		r.mu.Lock()
		r.present[r.name(c.Mailbox)] = c
		err := r.set(c)
		r.mu.Unlock()
		if err != nil {
			return fmt.Errorf("set the count of mailbox %d: %w", c.Mailbox, err)
		}
	}
	return nil
}

// set hands a count to the agent. r.mu must be held, so that an older one does
// not come after it.
func (r *Role) set(c Count) error {
	unread := names.UnreadOf(r.config.Number, c.Mailbox, c.Version)
	return r.agent.Set(r.name(c.Mailbox), unread, 1, uint64(c.Version))
}

// again hands the present count of a mailbox to the agent once more, if it is
// the site's.
func (r *Role) again(mailbox string) {
	r.agent.Subscribed(mailbox)
	r.mu.Lock()
	defer r.mu.Unlock()
	if c, ok := r.present[mailbox]; ok {
		_ = r.set(c) // it was taken before
	}
}

// Subscribe puts a device on a mailbox; once.
func (r *Role) Subscribe(s Subscription, _ *struct{}) error {
	ctx, cancel := context.WithTimeout(context.Background(), s.Timeout)
	defer cancel()
	_, err := r.client.Subscribe(ctx, agent.Registration{Mailbox: r.name(s.Mailbox), App: names.App, Device: agent.DeviceToken(names.Device(s.Device).Hex())})
	return err
}

// name returns what the organization calls a mailbox.
func (r *Role) name(mailbox int) string { return names.Mailbox(mailbox - r.config.First) }

// State returns what the site has done so far.
func (r *Role) State(_ struct{}, s *State) error {
	*s = State{Ledger: r.agent.Ledger(), Connected: r.agent.Status().Connected}
	return nil
}

// tokens signs with the store's current certificate, whichever that is by
// then. It implements agent.TokenSource.
type tokens struct {
	store        *certs.Store
	organization string

	mu         sync.Mutex // guards what follows
	thumbprint string
	issuer     *auth.Issuer
}

// Token implements agent.TokenSource.
func (t *tokens) Token(ctx context.Context, unlike string) (string, time.Time, error) {
	pair, err := t.store.Current()
	if err != nil {
		return "", time.Time{}, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if thumbprint := certs.Thumbprint(pair.Certificate); thumbprint != t.thumbprint {
		if t.issuer, err = rig.NewIssuer(pair, t.organization); err != nil {
			return "", time.Time{}, err
		}
		t.thumbprint = thumbprint
	}
	return t.issuer.Token(ctx, unlike)
}
