// Package backend is the JSON API for app back ends on the agent's local
// listener: put a device on a mailbox, or on all of its mailboxes, take it off, list
// what is there, and hear which subscriptions were removed because Apple has declared their device
// token dead.
//
// openapi.yaml is its reference. Who may call is the listener's business, who
// may be subscribed the relay's; it keeps nothing but the list of removals, in
// memory.
package backend

import (
	"context"
	_ "embed" // for openapi.yaml
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"badgerelay/relay/agent"
)

// OpenAPI is the reference of the API, served as /v1/openapi.yaml.
//
//go:embed openapi.yaml
var OpenAPI []byte

// Limits of a request. Ours: a device's list of 100 mailboxes takes 26 kB, and an
// app back end has few threads.
const (
	MaxBody     = 64 << 10
	maxInFlight = 64
	callTimeout = 20 * time.Second
	maxWait     = time.Minute
	maxPage     = 1000
)

// Relay is what the API asks of the relay; *agent.Client is one. Its errors are
// those that agent.Explain reads. It is safe for concurrent use.
type Relay interface {
	Subscribe(ctx context.Context, r agent.Registration) (agent.Subscribed, error)
	SetDevice(ctx context.Context, d agent.DeviceMailboxes) (agent.DeviceSet, error)
	Unsubscribe(ctx context.Context, r agent.Registration) (removed bool, err error)
	Page(ctx context.Context, filter agent.Filter, token string) (page []agent.Subscription, next string, err error)
}

// API serves the requests of app back ends. It is safe for concurrent use.
type API struct {
	relay    Relay
	removals *removals
	log      *slog.Logger
	mux      *http.ServeMux
	requests *prometheus.CounterVec // by path, and by the code of the answer
}

// route is a path with its method, what serves it, and how many requests may
// be under way; those who wait for news don't take the room of others.
type route struct {
	path, method string
	serve        func(http.ResponseWriter, *http.Request) error
	slots        chan struct{}
	parameters   []string // of its query
}

// New returns the API in front of a relay.
func New(relay Relay, log *slog.Logger, r prometheus.Registerer) *API {
	a := &API{
		relay: relay, removals: newRemovals(relay), log: log, mux: http.NewServeMux(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "backend_requests_total",
			Help: "Requests of app back ends, by path and by the HTTP code of the answer; 499: the caller has gone."}, []string{"path", "code"}),
	}
	r.MustRegister(a.requests)
	for _, route := range a.routes() {
		a.handle(route)
	}
	a.mount("/", "other", func(w http.ResponseWriter, _ *http.Request) {
		write(w, &problem{status: http.StatusNotFound, code: CodeNotFound, detail: "there is no such path; see /v1/openapi.yaml"})
	})
	return a
}

// mount has the requests of a path counted.
func (a *API) mount(pattern, path string, serve http.HandlerFunc) {
	a.mux.Handle(pattern, promhttp.InstrumentHandlerCounter(a.requests.MustCurryWith(prometheus.Labels{"path": path}), serve))
}

// ServeHTTP implements http.Handler for the paths below /v1/.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) { a.mux.ServeHTTP(w, r) }

// Left says that a device has left mailbox, or, where mailbox is empty, that any
// may have left any. Those who wait for news hear of it within a second. It never
// blocks.
func (a *API) Left(mailbox string) { a.removals.left(mailbox) }

func (a *API) routes() []route {
	calls, waits := make(chan struct{}, maxInFlight), make(chan struct{}, maxInFlight)
	return []route{
		{"/v1/subscribe", http.MethodPost, a.subscribe, calls, nil},
		{"/v1/device", http.MethodPut, a.setDevice, calls, nil},
		{"/v1/unsubscribe", http.MethodPost, a.unsubscribe, calls, nil},
		{"/v1/subscriptions", http.MethodGet, a.subscriptions, calls, []string{"mailbox", "limit", "page"}},
		{"/v1/removed", http.MethodGet, a.removed, waits, []string{"cursor", "wait", "limit"}},
		{"/v1/openapi.yaml", http.MethodGet, serveOpenAPI, calls, nil},
	}
}

// handle mounts a route; its error is written as a problem.
func (a *API) handle(o route) {
	a.requests.WithLabelValues(o.path, "200")
	a.mount(o.path, o.path, func(w http.ResponseWriter, r *http.Request) {
		if r.Method != o.method && (r.Method != http.MethodHead || o.method != http.MethodGet) {
			w.Header().Set("Allow", o.method)
			write(w, &problem{status: http.StatusMethodNotAllowed, code: CodeMethod, detail: "use " + o.method})
			return
		}
		select {
		case o.slots <- struct{}{}:
		default:
			write(w, &problem{status: http.StatusServiceUnavailable, code: CodeBusy, detail: "too many requests at once", after: time.Second})
			return
		}
		defer func() { <-o.slots }()
		err := parameters(r, o.parameters)
		if err == nil {
			err = o.serve(w, r)
		}
		if err != nil {
			p := explain(err)
			if r.Context().Err() != nil && p != errSlow {
				p = gone
			}
			a.log.Debug("back end's request refused", "path", o.path, "status", p.status, "reason", p.code, "error", err)
			write(w, p)
		}
	})
}

func serveOpenAPI(w http.ResponseWriter, _ *http.Request) error {
	w.Header().Set("Content-Type", "application/yaml")
	_, _ = w.Write(OpenAPI) // the caller has gone; there is nobody to tell
	return nil
}
