package backend

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"badgerelay/relay/agent"
)

// Registration is the body of unsubscribe, and names what subscribe subscribes.
type Registration struct {
	Mailbox     string `json:"mailbox"`
	App         string `json:"app"`
	DeviceToken string `json:"deviceToken"`
}

func (m *Registration) members() map[string]any {
	return map[string]any{"mailbox": &m.Mailbox, "app": &m.App, "deviceToken": &m.DeviceToken}
}

func (m *Registration) missing() string {
	return firstEmpty(member{"mailbox", m.Mailbox}, member{"app", m.App}, member{"deviceToken", m.DeviceToken})
}

// Subscribe is the body of subscribe.
type Subscribe struct {
	Registration
	KeepOthers bool `json:"keepOthers"`
}

func (m *Subscribe) members() map[string]any {
	all := m.Registration.members()
	all["keepOthers"] = &m.KeepOthers
	return all
}

// Device is the body of device. Mailboxes may be empty and must be there.
type Device struct {
	App         string   `json:"app"`
	DeviceToken string   `json:"deviceToken"`
	Mailboxes   []string `json:"mailboxes"`
}

func (m *Device) members() map[string]any {
	return map[string]any{"app": &m.App, "deviceToken": &m.DeviceToken, "mailboxes": &m.Mailboxes}
}

func (m *Device) missing() string {
	if m.Mailboxes == nil {
		return "mailboxes"
	}
	return firstEmpty(member{"app", m.App}, member{"deviceToken", m.DeviceToken})
}

// body is what a request sends.
type body interface {
	members() map[string]any // where to put their values; see decode
	missing() string         // the name of one that has to be there; empty: all are
}

type member struct{ name, value string }

// firstEmpty returns the name of the first member without a value; empty: all have one.
func firstEmpty(members ...member) string {
	for _, m := range members {
		if m.value == "" {
			return m.name
		}
	}
	return ""
}

// Subscription is one device on one mailbox. Absent times are not known.
type Subscription struct {
	Mailbox       string    `json:"mailbox"`
	App           string    `json:"app"`
	DeviceToken   string    `json:"deviceToken"`
	CreatedAt     time.Time `json:"createdAt,omitzero"`
	RegisteredAt  time.Time `json:"registeredAt,omitzero"`
	ExpiresAt     time.Time `json:"expiresAt,omitzero"`
	RemovedAt     time.Time `json:"removedAt,omitzero"`
	RemovalReason string    `json:"removalReason,omitempty"`

	OtherMailboxes []string `json:"otherMailboxes,omitempty"`
}

// SubscriptionOf returns what the API says of a subscription.
func SubscriptionOf(s *agent.Subscription) Subscription {
	return Subscription{s.Mailbox, s.App, string(s.Device), s.CreatedAt, s.RegisteredAt, s.ExpiresAt, s.RemovedAt, s.RemovalReason, s.OtherMailboxes}
}

// Subscribed is the answer of subscribe.
type Subscribed struct {
	Created       bool         `json:"created"`
	LeftMailboxes []string     `json:"leftMailboxes,omitempty"`
	Subscription  Subscription `json:"subscription"`
}

// DeviceSet is the answer of device.
type DeviceSet struct {
	Added     []string  `json:"added"`
	Removed   []string  `json:"removed"`
	Kept      []string  `json:"kept"`
	ExpiresAt time.Time `json:"expiresAt,omitzero"`
}

// DeviceSetOf returns what the API says of what came of setting a device.
func DeviceSetOf(done *agent.DeviceSet) DeviceSet {
	list := func(mailboxes []string) []string { return append([]string{}, mailboxes...) } // never null
	return DeviceSet{list(done.Added), list(done.Removed), list(done.Kept), done.ExpiresAt}
}

// Unsubscribed is the answer of unsubscribe.
type Unsubscribed struct {
	Removed bool `json:"removed"`
}

// Subscriptions is a page.
type Subscriptions struct {
	Subscriptions []Subscription `json:"subscriptions"`
	NextPage      string         `json:"nextPage,omitempty"`
}

// Removals is what removed answers.
type Removals struct {
	Removed []Subscription `json:"removed"`
	Cursor  string         `json:"cursor"`
	More    bool           `json:"more"`
}

func (a *API) subscribe(w http.ResponseWriter, r *http.Request) error {
	var m Subscribe
	if err := read(w, r, &m); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(r.Context(), callTimeout)
	defer cancel()
	done, err := a.relay.Subscribe(ctx, agent.Registration{
		Mailbox: m.Mailbox, App: m.App, Device: agent.DeviceToken(m.DeviceToken), KeepOthers: m.KeepOthers,
	})
	if err != nil {
		return err
	}
	status := http.StatusOK
	if done.Created {
		status = http.StatusCreated
	}
	answer(w, status, Subscribed{done.Created, done.LeftMailboxes, SubscriptionOf(&done.Subscription)})
	return nil
}

func (a *API) setDevice(w http.ResponseWriter, r *http.Request) error {
	var m Device
	if err := read(w, r, &m); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(r.Context(), callTimeout)
	defer cancel()
	done, err := a.relay.SetDevice(ctx, agent.DeviceMailboxes{App: m.App, Device: agent.DeviceToken(m.DeviceToken), Mailboxes: m.Mailboxes})
	if err != nil {
		return err
	}
	answer(w, http.StatusOK, DeviceSetOf(&done))
	return nil
}

// unsubscribe may be repeated: what is not there is as it should be.
func (a *API) unsubscribe(w http.ResponseWriter, r *http.Request) error {
	var m Registration
	if err := read(w, r, &m); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(r.Context(), callTimeout)
	defer cancel()
	removed, err := a.relay.Unsubscribe(ctx, agent.Registration{Mailbox: m.Mailbox, App: m.App, Device: agent.DeviceToken(m.DeviceToken)})
	if err != nil {
		return err
	}
	answer(w, http.StatusOK, Unsubscribed{removed})
	return nil
}

func (a *API) subscriptions(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	size, err := number(q.Get("limit"), maxPage, "limit")
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(r.Context(), callTimeout)
	defer cancel()
	page, next, err := a.relay.Page(ctx, agent.Filter{Mailbox: q.Get("mailbox"), PageSize: uint32(size)}, q.Get("page"))
	if err != nil {
		return err
	}
	m := Subscriptions{Subscriptions: make([]Subscription, len(page)), NextPage: next}
	for i := range page {
		m.Subscriptions[i] = SubscriptionOf(&page[i])
	}
	answer(w, http.StatusOK, m)
	return nil
}

func (a *API) removed(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	limit, err := number(q.Get("limit"), maxPage, "limit")
	if err != nil {
		return err
	}
	wait, err := seconds(q.Get("wait"))
	if err != nil {
		return err
	}
	// The listener bounds how long a request may be read; this one is read, and
	// waits.
	_ = http.NewResponseController(w).SetReadDeadline(time.Time{}) // where there is none, none cuts it
	ctx, cancel := context.WithTimeout(r.Context(), callTimeout+wait)
	defer cancel()
	m, err := a.removals.after(ctx, q.Get("cursor"), limit, wait)
	if err != nil {
		return err
	}
	answer(w, http.StatusOK, m)
	return nil
}

// number reads a query parameter from 1 to the most that is allowed, which is
// also what its absence means.
func number(s string, most int, name string) (int, error) {
	if s == "" {
		return most, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 || n > most {
		return 0, invalid(name, fmt.Sprintf("is not a number from 1 to %d", most))
	}
	return n, nil
}

func seconds(s string) (time.Duration, error) {
	if s == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 || n > int(maxWait/time.Second) {
		return 0, invalid("wait", fmt.Sprintf("is not a number of seconds from 0 to %d", int(maxWait/time.Second)))
	}
	return time.Duration(n) * time.Second, nil
}

// parameters refuses a query that can't be read or has other parameters than
// these, each once: one that is dropped, such as a misspelled mailbox, would ask for
// something else.
func parameters(r *http.Request, names []string) error {
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return malformed("the query can't be read: write %25 for % and %3B for ;")
	}
	for name, values := range q {
		if !slices.Contains(names, name) {
			return invalid(name, "is no parameter of this path")
		}
		if len(values) > 1 {
			return invalid(name, "is there more than once")
		}
	}
	return nil
}

// read decodes one JSON object strictly. The type of the content is asked for,
// because a browser sends it to strangers only after having asked them.
func read(w http.ResponseWriter, r *http.Request, m body) error {
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		return &problem{status: http.StatusUnsupportedMediaType, code: CodeMediaType, detail: "send application/json"}
	}
	data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, MaxBody))
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return &problem{status: http.StatusRequestEntityTooLarge, code: CodeTooLarge, detail: "the body is larger than 64 KiB"}
	}
	if late, ok := errors.AsType[net.Error](err); ok && late.Timeout() {
		return errSlow
	}
	if err != nil {
		return malformed("the body did not arrive whole")
	}
	if err := decode(data, m.members()); err != nil {
		return err
	}
	if name := m.missing(); name != "" {
		return invalid(name, "is missing")
	}
	return nil
}

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	_ = encoder.Encode(v) // the caller has gone; there is nobody to tell
}
