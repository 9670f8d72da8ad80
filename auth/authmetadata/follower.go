package authmetadata

import (
	"badgerelay/auth/certs"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Defaults of a Follower: a few times a day, and early no more often than a
// stranger who makes up thumbprints may cost an organization.
const (
	DefaultInterval      = 8 * time.Hour
	DefaultEarlyInterval = 30 * time.Minute
	// followTick is how often the list of organizations is read again, and
	// followPause how often at most when it is said to have changed.
	followTick  = 10 * time.Minute
	followPause = time.Second
)

// Source is an organization whose document is followed, by the
// operator's consent.
type Source struct {
	OrganizationID int64
	// Organization is the realm.
	Organization string
	// URL of the document; https.
	URL string
}

// FollowerConfig of a Follower.
type FollowerConfig struct {
	// Sources lists the organizations to follow. Required.
	Sources func(ctx context.Context) ([]Source, error)
	// Found is handed each signing certificate that a document newly shows;
	// one that is registered already is no error. After an error the same
	// certificate comes again with the next document. Required.
	Found func(ctx context.Context, source Source, cert *x509.Certificate) error
	// Client fetches. Nil is http.DefaultClient.
	Client *http.Client
	// Interval between two fetches of one document. Zero is
	// DefaultInterval; at least an hour.
	Interval time.Duration
	// EarlyInterval is the least time between fetches that unknown keys ask
	// for. Zero is DefaultEarlyInterval; at least a minute.
	EarlyInterval time.Duration
	// Logger; nil is slog.Default.
	Logger *slog.Logger
	// Registerer gets the metrics. Nil registers none.
	Registerer prometheus.Registerer
}

func (c *FollowerConfig) interval() time.Duration {
	if c.Interval == 0 {
		return DefaultInterval
	}
	return max(c.Interval, time.Hour)
}

func (c *FollowerConfig) earlyInterval() time.Duration {
	if c.EarlyInterval == 0 {
		return DefaultEarlyInterval
	}
	return max(c.EarlyInterval, time.Minute)
}

// Follower picks up the keys that organizations publish in their auth
// metadata documents. It only ever adds: a key that a document no longer
// shows, or a document that can't be fetched, takes nothing away.
type Follower struct {
	config   FollowerConfig
	log      *slog.Logger
	wake     chan struct{} // one slot: a hint has come
	fetches  map[bool]prometheus.Counter
	findings prometheus.Counter

	mu      sync.Mutex             // guards what follows
	hints   map[string]struct{}    // realms with an unknown key; only followed ones
	known   map[string]*followedAt // by realm in lower case; the pointers are Run's
	changed bool                   // the list of organizations is another one
}

// followedAt is what Run knows of one organization.
type followedAt struct {
	source Source
	last   time.Time // of the last fetch, good or not
	due    time.Time // of the next
	handed map[[32]byte]bool
	failed bool // the last fetch, so that only the first failure is logged
}

// NewFollower returns a follower that does nothing until Run.
func NewFollower(config FollowerConfig) (*Follower, error) {
	if config.Sources == nil || config.Found == nil {
		return nil, errors.New("follower needs sources and somewhere to hand keys to")
	}
	f := &Follower{
		config: config, log: config.Logger, wake: make(chan struct{}, 1),
		hints: make(map[string]struct{}), known: make(map[string]*followedAt),
	}
	if f.log == nil {
		f.log = slog.Default()
	}
	fetches := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "metadata_fetches_total", Help: "Fetches of organizations' auth metadata documents, by result.",
	}, []string{"result"})
	f.fetches = map[bool]prometheus.Counter{true: fetches.WithLabelValues("ok"), false: fetches.WithLabelValues("failed")}
	f.findings = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "metadata_keys_found_total", Help: "Signing keys picked up from auth metadata documents.",
	})
	if config.Registerer == nil {
		return f, nil
	}
	return f, errors.Join(config.Registerer.Register(fetches), config.Registerer.Register(f.findings))
}

// KeyUnknown is the Validator's OnUnknownKey: it asks for an early fetch of
// the document of realm, if that is followed. It never blocks and may be
// called from any goroutine. What a stranger claims costs at most one fetch
// per EarlyInterval.
func (f *Follower) KeyUnknown(_ [20]byte, realm string) {
	realm = strings.ToLower(realm)
	f.mu.Lock()
	_, followed := f.known[realm]
	_, again := f.hints[realm]
	if followed {
		f.hints[realm] = struct{}{}
	}
	f.mu.Unlock()
	if !followed || again {
		return
	}
	select {
	case f.wake <- struct{}{}:
	default: // Run is about to look anyway
	}
}

// SourcesChanged says that the list of organizations may be another one, so that
// a new address is followed at once. It never blocks and may be called from any
// goroutine.
func (f *Follower) SourcesChanged() {
	f.mu.Lock()
	f.changed = true
	f.mu.Unlock()
	select {
	case f.wake <- struct{}{}:
	default: // Run is about to look anyway
	}
}

// takeChanged says whether SourcesChanged was called since the last time.
func (f *Follower) takeChanged() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	changed := f.changed
	f.changed = false
	return changed
}

// Run follows until ctx is done, and returns nil then.
func (f *Follower) Run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	var read, refresh time.Time // when the list was read, and is again; hints don't move it
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		case <-f.wake:
		}
		if again := read.Add(followPause); f.takeChanged() && again.Before(refresh) {
			refresh = again
		}
		if now := time.Now(); !now.Before(refresh) {
			f.refresh(ctx, now)
			read, refresh = now, now.Add(followTick)
		}
		timer.Reset(min(f.turn(ctx), time.Until(refresh)))
	}
}

// refresh reads the list of organizations again. When that fails the old
// list stays.
func (f *Follower) refresh(ctx context.Context, now time.Time) {
	sources, err := f.config.Sources(ctx)
	if err != nil {
		if ctx.Err() == nil {
			f.log.Warn("list of organizations to follow not read", "error", err)
		}
		return
	}
	known := make(map[string]*followedAt, len(sources))
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, source := range sources {
		realm := strings.ToLower(source.Organization)
		known[realm] = f.known[realm]
		if known[realm] == nil || known[realm].source != source {
			known[realm] = &followedAt{source: source, due: now, handed: make(map[[32]byte]bool)}
		}
	}
	f.known = known
}

// turn fetches what is due and returns how long nothing will be.
func (f *Follower) turn(ctx context.Context) time.Duration {
	now := time.Now()
	wait := followTick
	for _, o := range f.due(now, &wait) {
		if ctx.Err() != nil {
			return 0
		}
		o.last = time.Now()
		o.due = o.last.Add(f.config.interval())
		f.follow(ctx, o)
	}
	return wait
}

// due turns hints into dates and returns who is due at now; wait is lowered to
// the next date after.
func (f *Follower) due(now time.Time, wait *time.Duration) []*followedAt {
	f.mu.Lock()
	defer f.mu.Unlock()
	for realm := range f.hints {
		delete(f.hints, realm)
		o, ok := f.known[realm]
		if !ok {
			continue
		}
		if early := o.last.Add(f.config.earlyInterval()); early.Before(o.due) {
			o.due = early
		}
	}
	var due []*followedAt
	for _, o := range f.known {
		if !o.due.After(now) {
			due = append(due, o)
		} else {
			*wait = min(*wait, o.due.Sub(now))
		}
	}
	return due
}

// follow fetches one document and hands on what it newly shows.
func (f *Follower) follow(ctx context.Context, o *followedAt) {
	document, err := Fetch(ctx, f.config.Client, o.source.URL)
	if ctx.Err() != nil {
		return
	}
	f.fetches[err == nil].Inc()
	if err != nil {
		// The keys that are registered stay. Repeats are counted, not logged.
		if !o.failed {
			f.log.Warn("auth metadata not fetched", "organization", o.source.Organization, "error", err)
		}
		o.failed = true
		return
	}
	o.failed = false
	for _, cert := range document.SigningCertificates() {
		sum := sha256.Sum256(cert.Raw)
		if o.handed[sum] || !time.Now().Before(cert.NotAfter) {
			continue
		}
		if err := f.config.Found(ctx, o.source, cert); err != nil {
			f.log.Warn("published key not registered", "organization", o.source.Organization,
				"thumbprint", certs.Thumbprint(cert), "error", err)
			continue
		}
		o.handed[sum] = true
		f.findings.Inc()
	}
}
