package backend

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"badgerelay/relay/agent"
)

// fakeRelay has a registry of a few lines and a refusal to be chosen.
type fakeRelay struct {
	mu      sync.Mutex // guards what follows
	live    []agent.Subscription
	removed []agent.Subscription
	refusal error
	lists   int           // of removed ones
	held    chan struct{} // not nil: calls wait for it
}

func (r *fakeRelay) enter(ctx context.Context) error {
	r.mu.Lock()
	held, refusal := r.held, r.refusal
	r.mu.Unlock()
	if held != nil {
		select {
		case <-held:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return refusal
}

func (r *fakeRelay) find(mailbox, app string, device agent.DeviceToken) int {
	return slices.IndexFunc(r.live, func(s agent.Subscription) bool { return s.Mailbox == mailbox && s.App == app && s.Device == device })
}

func (r *fakeRelay) Subscribe(ctx context.Context, q agent.Registration) (agent.Subscribed, error) {
	if err := r.enter(ctx); err != nil {
		return agent.Subscribed{}, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	s := agent.Subscription{Mailbox: q.Mailbox, App: q.App, Device: q.Device, RegisteredAt: time.Now().UTC()}
	done := agent.Subscribed{Created: r.find(q.Mailbox, q.App, q.Device) < 0}
	if done.Created {
		for _, mailbox := range r.on(q.App, q.Device) {
			if q.KeepOthers {
				s.OtherMailboxes = append(s.OtherMailboxes, mailbox)
				continue
			}
			i := r.find(mailbox, q.App, q.Device)
			r.live = slices.Delete(r.live, i, i+1)
			done.LeftMailboxes = append(done.LeftMailboxes, mailbox)
		}
		r.live = append(r.live, s)
	}
	done.Subscription = s
	return done, nil
}

// on returns the mailboxes of a device. r.mu is held.
func (r *fakeRelay) on(app string, device agent.DeviceToken) (mailboxes []string) {
	for _, s := range r.live {
		if s.App == app && s.Device == device {
			mailboxes = append(mailboxes, s.Mailbox)
		}
	}
	return mailboxes
}

func (r *fakeRelay) SetDevice(ctx context.Context, d agent.DeviceMailboxes) (done agent.DeviceSet, err error) {
	if err := r.enter(ctx); err != nil {
		return agent.DeviceSet{}, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, mailbox := range r.on(d.App, d.Device) {
		if slices.Contains(d.Mailboxes, mailbox) {
			done.Kept = append(done.Kept, mailbox)
			continue
		}
		i := r.find(mailbox, d.App, d.Device)
		r.live = slices.Delete(r.live, i, i+1)
		done.Removed = append(done.Removed, mailbox)
	}
	for _, mailbox := range d.Mailboxes {
		if r.find(mailbox, d.App, d.Device) < 0 {
			r.live = append(r.live, agent.Subscription{Mailbox: mailbox, App: d.App, Device: d.Device})
			done.Added = append(done.Added, mailbox)
		}
	}
	return done, nil
}

func (r *fakeRelay) Unsubscribe(ctx context.Context, s agent.Registration) (removed bool, err error) {
	if err := r.enter(ctx); err != nil {
		return false, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	i := r.find(s.Mailbox, s.App, s.Device)
	if i < 0 {
		return false, nil
	}
	r.live = slices.Delete(r.live, i, i+1)
	return true, nil
}

func (r *fakeRelay) Page(ctx context.Context, filter agent.Filter, token string) ([]agent.Subscription, string, error) {
	if err := r.enter(ctx); err != nil {
		return nil, "", err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	all := r.live
	if filter.Removed {
		all = r.removed
		r.lists++
	}
	if filter.Mailbox != "" {
		all = slices.DeleteFunc(slices.Clone(all), func(s agent.Subscription) bool { return s.Mailbox != filter.Mailbox })
	}
	from := 0
	if token != "" {
		if _, err := fmt.Sscan(token, &from); err != nil || from < 0 || from > len(all) {
			return nil, "", refusal(codes.InvalidArgument, "FIELD_INVALID", "page_token", 0)
		}
	}
	end := min(len(all), from+int(filter.PageSize))
	page := slices.Clone(all[from:end])
	if end == len(all) {
		return page, "", nil
	}
	return page, fmt.Sprint(end), nil
}

// refusal is an error as a relay's refusal arrives.
func refusal(code codes.Code, reason, field string, after time.Duration) error {
	info := &errdetails.ErrorInfo{Reason: reason, Domain: "badgerelay", Metadata: map[string]string{"field": field, "rule": "the test's"}}
	st, err := status.New(code, "the test says no").WithDetails(info, &errdetails.RetryInfo{RetryDelay: durationpb.New(after)})
	if err != nil {
		panic(err) // messages of ours can be marshalled
	}
	return st.Err()
}

func (r *fakeRelay) remove(mailbox string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.removed = append(r.removed, agent.Subscription{Mailbox: mailbox, App: "mail", Device: "ab", RemovedAt: time.Now().UTC(), RemovalReason: "Unregistered"})
}

// fill makes so many removals, in place of those of before.
func (r *fakeRelay) fill(n int) {
	r.mu.Lock()
	r.removed = nil
	r.mu.Unlock()
	for i := range n {
		r.remove(fmt.Sprintf("box %d", i))
	}
}

// pages returns how many pages of removals it was asked for.
func (r *fakeRelay) pages() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.lists
}

// api is an API in front of a fake relay.
type api struct {
	*API
	t     testing.TB
	relay *fakeRelay
}

func newAPI(t testing.TB) *api {
	r := &fakeRelay{}
	return &api{New(r, slog.New(slog.DiscardHandler), prometheus.NewRegistry()), t, r}
}

// do makes a request; a body is sent as JSON.
func (a *api) do(method, target, body string) *httptest.ResponseRecorder {
	q := httptest.NewRequest(method, target, strings.NewReader(body))
	if body != "" {
		q.Header.Set("Content-Type", "application/json; charset=utf-8")
	}
	w := httptest.NewRecorder()
	a.ServeHTTP(w, q)
	return w
}

// want checks an answer's status and body, in which fields may be left out.
func (a *api) want(w *httptest.ResponseRecorder, status int, parts ...string) {
	a.t.Helper()
	for _, part := range parts {
		if !strings.Contains(w.Body.String(), part) {
			a.t.Errorf("answer %d %s, want %q in it", w.Code, w.Body, part)
		}
	}
	if w.Code != status {
		a.t.Errorf("answer %d %s, want %d", w.Code, w.Body, status)
	}
}

const ann = `{"mailbox":"ann/\"x\" ü@fabrikam.com","app":"mail","deviceToken":"ab"}`

func TestSubscribeAndLeave(t *testing.T) {
	a := newAPI(t)
	a.want(a.do("POST", "/v1/subscribe", ann), 201, `"created":true`, `"deviceToken":"ab"`)
	a.want(a.do("POST", "/v1/subscribe", ann), 200, `"created":false`)
	a.want(a.do("GET", "/v1/subscriptions", ""), 200, `{"subscriptions":[{"mailbox":"ann/\"x\" ü@fabrikam.com"`)
	a.want(a.do("GET", "/v1/subscriptions?mailbox=bob", ""), 200, `{"subscriptions":[]}`)
	a.want(a.do("POST", "/v1/unsubscribe", ann), 200, `{"removed":true}`)
	a.want(a.do("POST", "/v1/unsubscribe", ann), 200, `{"removed":false}`)
}

func TestPages(t *testing.T) {
	a := newAPI(t)
	for _, mailbox := range []string{"a", "b", "c"} {
		a.do("POST", "/v1/subscribe", `{"mailbox":"`+mailbox+`","app":"mail","deviceToken":"ab","keepOthers":true}`)
	}
	a.want(a.do("GET", "/v1/subscriptions?limit=2", ""), 200, `"nextPage":"2"`)
	w := a.do("GET", "/v1/subscriptions?limit=2&page=2", "")
	if a.want(w, 200, `"mailbox":"c"`); strings.Contains(w.Body.String(), "nextPage") {
		t.Errorf("last page names another: %s", w.Body)
	}
	a.want(a.do("GET", "/v1/subscriptions?page=x", ""), 400, `"code":"FIELD_INVALID"`, `"field":"page"`)
	a.want(a.do("GET", "/v1/subscriptions?limit=1001", ""), 400, `"code":"FIELD_INVALID"`, `"field":"limit"`)
}

func TestSeveralMailboxes(t *testing.T) {
	a := newAPI(t)
	a.want(a.do("POST", "/v1/subscribe", `{"mailbox":"a","app":"mail","deviceToken":"ab"}`), 201)
	a.want(a.do("POST", "/v1/subscribe", `{"mailbox":"b","app":"mail","deviceToken":"ab","keepOthers":true}`), 201, `"otherMailboxes":["a"]`)
	a.want(a.do("POST", "/v1/subscribe", `{"mailbox":"c","app":"mail","deviceToken":"ab","keepOthers":false}`), 201, `"leftMailboxes":["a","b"]`)
	a.want(a.do("PUT", "/v1/device", `{"app":"mail","deviceToken":"ab","mailboxes":["c","d"]}`), 200, `{"added":["d"],"removed":[],"kept":["c"]}`)
	a.want(a.do("PUT", "/v1/device", `{"app":"mail","deviceToken":"ab","mailboxes":["c","d"]}`), 200, `{"added":[],"removed":[],"kept":["c","d"]}`)
	for body, want := range map[string]string{
		`{"app":"mail","deviceToken":"ab"}`:                              `"field":"mailboxes"`, // forgotten, and not meant to be empty
		`{"app":"mail","deviceToken":"ab","mailboxes":null}`:             `"field":"mailboxes"`,
		`{"app":"","deviceToken":"ab","mailboxes":[]}`:                   `"field":"app"`,
		`{"app":"mail","mailboxes":[]}`:                                  `"field":"deviceToken"`,
		`{"app":"mail","deviceToken":"ab","mailboxes":[1]}`:              CodeMalformed,
		`{"app":"mail","deviceToken":"ab","mailboxes":[],"mailbox":"a"}`: CodeMalformed,
	} {
		a.want(a.do("PUT", "/v1/device", body), 400, want)
	}
	if n := len(a.relay.live); n != 2 {
		t.Errorf("%d subscriptions after bad requests, want 2", n)
	}
	a.want(a.do("PUT", "/v1/device", `{"app":"mail","deviceToken":"ab","mailboxes":[]}`), 200, `"removed":["c","d"]`)
	a.relay.refusal = refusal(codes.InvalidArgument, "FIELD_INVALID", "mailboxes[7]", 0)
	a.want(a.do("PUT", "/v1/device", `{"app":"mail","deviceToken":"ab","mailboxes":[]}`), 400, `"field":"mailboxes[7]"`)
	var all []string
	for i := range 100 {
		all = append(all, `"`+strings.Repeat("é", 126)+fmt.Sprintf("%04d", i)+`"`)
	}
	a.relay.refusal = nil
	a.want(a.do("PUT", "/v1/device", `{"app":"mail","deviceToken":"ab","mailboxes":[`+strings.Join(all, ",")+`]}`), 200) // the longest that the relay takes
}

func TestBadRequests(t *testing.T) {
	a := newAPI(t)
	for body, want := range map[string]struct {
		status int
		code   string
	}{
		`{`: {400, CodeMalformed}, `[]`: {400, CodeMalformed}, `"x"`: {400, CodeMalformed}, ann + `{}`: {400, CodeMalformed},
		`null`: {400, CodeMalformed}, `{}`: {400, CodeField}, `{"mailbox":"a","app":"b"}`: {400, CodeField},
		`{"mailbox":1,"app":"b","deviceToken":"c"}`:                                  {400, CodeMalformed},
		`{"mailbox":"a","app":"b","deviceToken":"c","x":1}`:                          {400, CodeMalformed},
		`{"mailbox":"a","app":"b","deviceToken":"c","keepOthers":"x"}`:               {400, CodeMalformed},
		"{\"mailbox\":\"\xff\",\"app\":\"b\",\"deviceToken\":\"c\"}":                 {400, CodeMalformed},
		`{"mailbox":"` + strings.Repeat("a", MaxBody) + `"}`:                         {413, CodeTooLarge},
		`{"mailbox":"a","app":"b","deviceToken":"c"}` + strings.Repeat(" ", MaxBody): {413, CodeTooLarge},
	} {
		for _, path := range []string{"/v1/subscribe", "/v1/unsubscribe"} {
			if w := a.do("POST", path, body); w.Code != want.status || !strings.Contains(w.Body.String(), want.code) {
				t.Errorf("%s %.60q: %d %s, want %d %s", path, body, w.Code, w.Body, want.status, want.code)
			}
		}
	}
	a.want(a.do("GET", "/v1/subscribe", ""), 405, CodeMethod)
	a.want(a.do("POST", "/v1/removed", "{}"), 405, CodeMethod)
	a.want(a.do("GET", "/v1/nothing", ""), 404, CodeNotFound)
	a.want(a.do("GET", "/v1/removed?wait=61", ""), 400, `"field":"wait"`)
	a.want(a.do("GET", "/v1/removed?cursor=x", ""), 400, `"field":"cursor"`)
	form := httptest.NewRequest("POST", "/v1/subscribe", strings.NewReader(ann))
	form.Header.Set("Content-Type", "text/plain") // what a browser sends to anybody
	w := httptest.NewRecorder()
	a.ServeHTTP(w, form)
	a.want(w, 415, CodeMediaType)
	if len(a.relay.live) > 0 {
		t.Errorf("the relay was told %v", a.relay.live)
	}
}

func TestRefusals(t *testing.T) {
	for _, test := range []struct {
		err    error
		status int
		code   string
		field  string
		after  string
	}{
		{refusal(codes.InvalidArgument, "FIELD_INVALID", "device_token", 0), 400, "FIELD_INVALID", "deviceToken", ""},
		{refusal(codes.InvalidArgument, "APP_UNKNOWN", "app", 0), 400, "APP_UNKNOWN", "app", ""},
		{refusal(codes.PermissionDenied, "APP_NOT_ALLOWED", "", 0), 403, "APP_NOT_ALLOWED", "", ""},
		{refusal(codes.ResourceExhausted, "LIMIT_REACHED", "", 0), 429, "LIMIT_REACHED", "", ""},
		{refusal(codes.ResourceExhausted, "QUOTA_EXCEEDED", "", 1500*time.Millisecond), 429, "QUOTA_EXCEEDED", "", "2"},
		{refusal(codes.PermissionDenied, "ORGANIZATION_DISABLED", "", 0), 502, "ORGANIZATION_DISABLED", "", ""},
		{refusal(codes.Unauthenticated, "TOKEN_KEY_UNKNOWN", "", 0), 502, "TOKEN_KEY_UNKNOWN", "", ""},
		{refusal(codes.Unavailable, "DRAINING", "", 0), 503, "DRAINING", "", "1"},
		{refusal(codes.Unavailable, "REGISTRY_UNAVAILABLE", "", 0), 503, "REGISTRY_UNAVAILABLE", "", "1"},
		{status.Error(codes.Unavailable, "dial tcp 10.0.0.1:443: secret inner text"), 503, CodeUnreachable, "", "1"},
		{status.Error(codes.DeadlineExceeded, "secret inner text"), 504, CodeTimeout, "", "1"},
		{status.Error(codes.Unimplemented, "secret inner text"), 502, CodeRefused, "", ""},
		{fmt.Errorf("open key: %w", errors.New("secret inner text")), 503, CodeUnreachable, "", "1"},
	} {
		a := newAPI(t)
		a.relay.refusal = test.err
		w := a.do("POST", "/v1/subscribe", ann)
		var p Problem
		if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil {
			t.Fatalf("%v: %v in %s", test.err, err, w.Body)
		}
		if w.Code != test.status || p.Status != test.status || p.Code != test.code || p.Field != test.field || w.Header().Get("Retry-After") != test.after ||
			w.Header().Get("Content-Type") != "application/problem+json" || strings.Contains(w.Body.String(), "secret") {
			t.Errorf("%v: %d %+v after %q, want %d %s %q after %q", test.err, w.Code, p, w.Header().Get("Retry-After"), test.status, test.code, test.field, test.after)
		}
	}
}

func TestRelayThatDoesNotAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(t)
		a.relay.held = make(chan struct{})
		began := time.Now()
		a.want(a.do("POST", "/v1/subscribe", ann), 504, CodeTimeout)
		if took := time.Since(began); took != callTimeout {
			t.Errorf("answered after %v, want %v", took, callTimeout)
		}
	})
}

func TestTooManyAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(t)
		a.relay.held = make(chan struct{})
		var calls sync.WaitGroup
		for range maxInFlight {
			calls.Go(func() { a.do("POST", "/v1/subscribe", ann) }) // ends with held
		}
		synctest.Wait()
		a.want(a.do("POST", "/v1/subscribe", ann), 503, CodeBusy)
		close(a.relay.held)
		calls.Wait()
		a.want(a.do("POST", "/v1/subscribe", ann), 200)
	})
}

func FuzzRequest(f *testing.F) {
	f.Add("/v1/subscribe", []byte(ann))
	f.Add("/v1/device", []byte(`{"app":"b","deviceToken":"c","mailboxes":["a"]}`))
	f.Add("/v1/unsubscribe", []byte(`{"mailbox":"a","app":"b","deviceToken":"c"}`))
	f.Add("/v1/subscriptions?limit=1&page=1", []byte{})
	f.Add("/v1/removed?cursor=a-1&limit=5", []byte(`{`))
	a := newAPI(f)
	f.Fuzz(func(t *testing.T, target string, body []byte) {
		for _, method := range []string{"GET", "POST", "PUT"} {
			q, err := http.NewRequest(method, "http://localhost/v1/"+strings.TrimPrefix(target, "/v1/"), bytes.NewReader(body))
			if err != nil || strings.Contains(target, "wait") {
				return // no request that a server would see, or one that waits
			}
			q.Header.Set("Content-Type", "application/json")
			w := httptest.NewRecorder()
			a.ServeHTTP(w, q)
			if w.Code >= 500 || w.Code < 200 {
				t.Errorf("%s %q %q: %d %s", method, target, body, w.Code, w.Body)
			}
			if kind := w.Header().Get("Content-Type"); strings.HasSuffix(kind, "json") && !json.Valid(w.Body.Bytes()) {
				t.Errorf("%s %q %q: %d %s is not JSON", method, target, body, w.Code, w.Body)
			}
		}
	})
}

func TestRequestsAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(t)
		want := func(why, path, code string, times float64) {
			t.Helper()
			var m dto.Metric
			if err := a.requests.WithLabelValues(path, code).Write(&m); err != nil {
				t.Fatal(err)
			}
			if got := m.GetCounter().GetValue(); got != times {
				t.Errorf("%s: %v requests of %s with %s, want %v", why, got, path, code, times)
			}
		}
		a.do("POST", "/v1/subscribe", ann)
		want("a device", "/v1/subscribe", "201", 1)
		a.do("POST", "/v1/subscribe", "{}")
		want("nothing", "/v1/subscribe", "400", 1)
		a.relay.refusal = refusal(codes.ResourceExhausted, "LIMIT_REACHED", "", 0)
		a.do("POST", "/v1/subscribe", ann)
		want("one too many", "/v1/subscribe", "429", 1)
		a.relay.refusal = nil
		a.do("GET", "/v1/subscribe", "")
		want("another method", "/v1/subscribe", "405", 1)
		a.do("GET", "/v1/nothing", "")
		want("no such path", "other", "404", 1)
		a.do("GET", "/v1/subscriptions", "")
		want("a list", "/v1/subscriptions", "200", 1)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		a.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/v1/removed?wait=60", nil).WithContext(ctx))
		want("a caller who has hung up", "/v1/removed", "499", 1)
	})
}
