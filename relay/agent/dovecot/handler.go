package dovecot

import (
	"cmp"
	"context"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"badgerelay/relay/agent/source"

	"github.com/prometheus/client_golang/prometheus"
)

// Path is what a Handler answers below; LuaPath and OXPath are where.
const (
	Path    = "/v1/notify/"
	LuaPath = Path + "dovecot"
	OXPath  = Path + "ox"
)

// Bounds in bytes: of a Lua notification's query, which has a user's and a folder's
// name and numbers, and of an OX notification's body, which also carries header
// fields, of which a mail may have long ones, and a snippet. Ours: several times what
// a usual one has.
const (
	maxLua = 16 << 10
	maxOX  = 256 << 10
)

// maxMailbox is the contract's bound of a mailbox's name (relay.proto, Event).
const maxMailbox = 256

// Config is what a Handler needs.
type Config struct {
	// Mailbox returns the relay's name for a user's mailbox. Nil: they are
	// called alike.
	Mailbox func(user string) string
	// Folders are those whose unread messages are added up. Empty: INBOX.
	Folders []string
	// Shared are the names of folders of others, with {user} where the owner's name
	// is: "shared/{user}/". What is changed in one, by whomever, is a reason to
	// count the owner's mailbox. Empty: none is.
	Shared []string
	// Blind says that no count can be asked for. Then what OX's driver says is
	// taken for the count, in the order of arrival.
	Blind bool
	// Logger gets refusals, at most one a minute. Nil: nothing is logged.
	Logger *slog.Logger
	// Metrics registers the handler's metrics. Nil: none.
	Metrics prometheus.Registerer
}

// Handler takes notifications. It is a source.Source; all methods are safe for
// concurrent use. It takes notifications of everybody whom its server lets
// through, once Run has been called.
type Handler struct {
	cfg     Config
	log     *slog.Logger
	metrics *metrics
	mux     *http.ServeMux
	sink    atomic.Pointer[source.Sink] // nil: Run was not called yet
	logged  atomic.Int64                // when a refusal was logged, in nanoseconds since 1970
}

// New returns a handler that starts nothing.
func New(c Config) *Handler {
	h := &Handler{cfg: c, log: c.Logger, metrics: newMetrics(c.Metrics), mux: http.NewServeMux()}
	if h.log == nil {
		h.log = slog.New(slog.DiscardHandler)
	}
	if len(c.Folders) == 0 {
		h.cfg.Folders = []string{inbox}
	}
	h.mux.HandleFunc(LuaPath, h.take(formLua, http.MethodPost, readQuery, h.lua))
	h.mux.HandleFunc(OXPath, h.take(formOX, http.MethodPut, readBody, h.ox))
	return h
}

// Name implements source.Source.
func (h *Handler) Name() string { return "dovecot" }

// Run implements source.Source: what comes in from now on is told to sink.
func (h *Handler) Run(ctx context.Context, sink source.Sink) error {
	h.sink.Store(&sink)
	<-ctx.Done()
	return nil
}

// Status implements source.Source.
func (h *Handler) Status() source.Status { return source.Status{} }

// ServeHTTP answers a notification.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) { h.mux.ServeHTTP(w, r) }

// take wraps what is done with one form of notification, which read reads.
func (h *Handler) take(
	f form, method string, read func(http.ResponseWriter, *http.Request) (*notification, *refusal), do func(source.Sink, *notification) result,
) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var n *notification
		err := errMethod
		if r.Method == method {
			n, err = read(w, r)
		} else {
			w.Header().Set("Allow", method)
		}
		if err == nil {
			err = h.name(n)
		}
		if err != nil {
			h.metrics.count(f, err.result)
			h.note(r, f, err)
			err.answer(w)
			return
		}
		sink := h.sink.Load()
		if sink == nil {
			h.metrics.count(f, errStarting.result)
			errStarting.answer(w)
			return
		}
		h.metrics.count(f, do(*sink, n))
		w.WriteHeader(http.StatusNoContent)
	}
}

// readQuery returns the notification in a request's query. Dovecot announces a body
// and waits until it is asked for, in the middle of a delivery; a query comes at once.
func readQuery(_ http.ResponseWriter, r *http.Request) (*notification, *refusal) {
	switch {
	case len(r.URL.RawQuery) > maxLua:
		return nil, errTooLarge
	case r.ContentLength != 0:
		return nil, errBody
	}
	return parsed(parseQuery(r.URL.RawQuery))
}

// readBody returns the notification in a request's body.
func readBody(w http.ResponseWriter, r *http.Request) (*notification, *refusal) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxOX))
	if err != nil {
		return nil, unread(err)
	}
	return parsed(parseJSON(body))
}

func parsed(n *notification, err error) (*notification, *refusal) {
	if err != nil {
		return nil, &refusal{http.StatusBadRequest, malformed, err.Error()}
	}
	return n, nil
}

// name notes the relay's name of the mailbox.
func (h *Handler) name(n *notification) *refusal {
	var err error
	if n.mailbox, err = h.mailbox(n.user); err != nil {
		return &refusal{http.StatusUnprocessableEntity, invalid, err.Error()}
	}
	return nil
}

func (h *Handler) mailbox(user string) (string, error) {
	name := user
	if h.cfg.Mailbox != nil {
		name = h.cfg.Mailbox(user)
	}
	if user == "" || name == "" || len(name) > maxMailbox || !utf8.ValidString(name) {
		return "", errUser
	}
	return name, nil
}

// lua hands on what the script says.
func (h *Handler) lua(sink source.Sink, n *notification) result {
	if n.missed {
		sink.Missed()
	}
	owner, folder, shared := h.owner(n.folder)
	if shared && h.counted(folder) {
		sink.Changed(owner)
	}
	switch {
	case !h.counted(n.folder) && shared && h.counted(folder):
		return changed
	case !h.counted(n.folder):
		return otherFolder
	case shared:
		sink.Missed() // it may be in everybody's count
		return changed
	case len(h.cfg.Folders) > 1 || !n.unseen.set:
		sink.Changed(n.mailbox)
		return changed
	}
	c := source.Count{Mailbox: n.mailbox, Unread: uint32(n.unseen.value), WithDeleted: true}
	if n.validity.set && n.modseq.set {
		c.Epoch, c.Version = n.validity.value, n.modseq.value
	}
	sink.Counted(c)
	return counted
}

// ox takes new mail as a reason to ask.
func (h *Handler) ox(sink source.Sink, n *notification) result {
	switch {
	case !h.counted(n.folder):
		return otherFolder
	case h.cfg.Blind && n.unseen.set && len(h.cfg.Folders) == 1:
		sink.Counted(source.Count{Mailbox: n.mailbox, Unread: uint32(n.unseen.value), WithDeleted: true})
		return counted
	}
	sink.Changed(n.mailbox)
	return changed
}

// owner returns whose folder it is that a user calls folder, if it is somebody
// else's, and what the owner calls it.
func (h *Handler) owner(folder string) (mailbox, name string, shared bool) {
	for _, pattern := range h.cfg.Shared {
		before, after, _ := strings.Cut(pattern, "{user}")
		rest, ok := strings.CutPrefix(folder, before)
		if !ok || after == "" {
			continue
		}
		user, name, _ := strings.Cut(rest, after)
		if mailbox, err := h.mailbox(user); err == nil {
			return mailbox, cmp.Or(name, inbox), true
		}
	}
	return "", "", false
}

// inbox is called alike however it is written (RFC 9051, section 5.1); the
// names of other folders are case-sensitive.
const inbox = "INBOX"

func (h *Handler) counted(folder string) bool {
	for _, f := range h.cfg.Folders {
		if f == folder || strings.EqualFold(f, inbox) && strings.EqualFold(folder, inbox) {
			return true
		}
	}
	return false
}

// logInterval is the least time between two refusals that are logged: a program
// that is wrong is so with every change.
const logInterval = time.Minute

// note logs a refusal, unless one was logged just before.
func (h *Handler) note(r *http.Request, f form, why *refusal) {
	now, last := time.Now().UnixNano(), h.logged.Load()
	if now-last >= int64(logInterval) && h.logged.CompareAndSwap(last, now) {
		h.log.Warn("notification refused", "form", f.String(), "code", why.result.String(), "error", why.message, "peer", r.RemoteAddr)
	}
}
