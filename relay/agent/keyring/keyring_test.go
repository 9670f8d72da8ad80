package keyring

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"badgerelay/auth"
	"badgerelay/auth/authmetadata"
	"badgerelay/auth/certs"
	"badgerelay/relay/agent"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const realm = "fabrikam.com"

var errUnknownKey = status.Error(codes.Unauthenticated, "the test does not know the key")

// template is a directory with a current and a staged certificate, from the
// beginning of a bubble's time; keys are slow to make.
var template string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "keyring")
	if err != nil {
		panic(err) // there is nothing to test in
	}
	template = filepath.Join(dir, "store")
	code := m.Run()
	_ = os.RemoveAll(dir) // the system cleans up what stays
	os.Exit(code)
}

// newStore returns a store with a current certificate and one that is staged
// for a time from now.
func newStore(t *testing.T, in time.Duration) *certs.Store {
	t.Helper()
	if _, err := os.Stat(template); err != nil {
		store, err := certs.OpenStore(template)
		ok(t, err)
		_, _, err = store.Ensure(realm)
		ok(t, err)
		_, err = store.Stage(realm, time.Now(), true)
		ok(t, err)
	}
	dir := filepath.Join(t.TempDir(), "store")
	ok(t, os.CopyFS(dir, os.DirFS(template)))
	keys, err := filepath.Glob(filepath.Join(dir, "*.key"))
	ok(t, err)
	for _, key := range keys {
		ok(t, os.Chmod(key, 0o600)) // CopyFS has it readable for all
	}
	store, err := certs.OpenStore(dir)
	ok(t, err)
	ok(t, store.Reschedule(time.Now().Add(in), true))
	return store
}

// fixture is a keyring in a bubble, with the relay's answer to be chosen.
type fixture struct {
	*Keyring
	t           *testing.T
	store       *certs.Store
	first, next string // thumbprints

	mu      sync.Mutex // guards what follows
	answer  error      // of the relay
	tries   int
	changed int
	log     bytes.Buffer
}

// start runs a keyring whose next certificate is staged for a time from now.
func start(t *testing.T, in time.Duration, answer error) *fixture {
	t.Helper()
	store := newStore(t, in)
	state, err := store.State()
	ok(t, err)
	f := &fixture{t: t, store: store, first: state.Current.Thumbprint, next: state.Next.Thumbprint, answer: answer}
	f.Keyring, err = New(Config{
		Store: store, Organization: realm, Logger: slog.New(slog.NewTextHandler(&f.log, nil)),
		Issuer: func(p *certs.Pair) (*auth.Issuer, error) {
			return auth.NewIssuer(auth.IssuerConfig{Key: p.Key, Certificate: p.Certificate, Realm: realm,
				TargetPrincipal: auth.PrincipalExchange, Authority: "relay.test"})
		},
		Try: func(ctx context.Context, tokens agent.TokenSource) error {
			_, _, err := tokens.Token(ctx, "")
			f.mu.Lock()
			defer f.mu.Unlock()
			f.tries++
			return errors.Join(err, f.answer)
		},
		Changed: func() {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.changed++
		},
	})
	ok(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- f.Run(ctx) }() // ends with ctx
	t.Cleanup(func() {
		cancel()
		ok(t, <-done)
	})
	return f
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// answers changes what the relay answers.
func (f *fixture) answers(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answer = err
}

// signs checks what signs, and how often the relay was asked and the agent told.
func (f *fixture) signs(what, thumbprint string, tries, changed int) {
	f.t.Helper()
	synctest.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	if got := f.Thumbprint(); got != thumbprint || f.tries != tries || f.changed != changed {
		f.t.Errorf("%s: %s signs, relay asked %d times, agent told %d times; want %s, %d, %d", what, got, f.tries, f.changed, thumbprint, tries, changed)
	}
}

func TestRollsOverAtTheEffectiveDate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, time.Hour, nil)
		time.Sleep(time.Hour - time.Nanosecond)
		f.signs("just before", f.first, 0, 0)
		time.Sleep(time.Nanosecond)
		f.signs("at the date", f.next, 1, 1)
		state, err := f.store.State()
		ok(t, err)
		if state.Current.Thumbprint != f.next || state.Previous.Thumbprint != f.first || state.Next != nil {
			t.Errorf("store has %+v, want the next certificate current", state)
		}
		time.Sleep(certs.Overlap - time.Nanosecond)
		f.signs("in the overlap", f.next, 1, 1)
		if state, err = f.store.State(); err != nil || state.Previous == nil {
			t.Errorf("previous is gone before its overlap is over: %v", err)
		}
		time.Sleep(lookInterval)
		synctest.Wait()
		if state, err = f.store.State(); err != nil || state.Previous != nil {
			t.Errorf("previous is %+v after its overlap, %v", state.Previous, err)
		}
	})
}

// TestRelayWithoutRoomKnowsTheKey refuses for another reason than the token, after it has
// accepted that.
func TestRelayWithoutRoomKnowsTheKey(t *testing.T) {
	for _, reason := range []string{"LIMIT_REACHED", "PRODUCT_TOO_OLD"} {
		t.Run(reason, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				refusal, err := status.New(codes.ResourceExhausted, "refused").WithDetails(&errdetails.ErrorInfo{Domain: "badgerelay", Reason: reason})
				ok(t, err)
				f := start(t, time.Second, refusal.Err())
				time.Sleep(lookInterval)
				f.signs("at the date", f.next, 1, 1)
			})
		})
	}
}

func TestKeepsSigningUntilTheRelayKnowsTheNextKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, time.Second, errUnknownKey)
		time.Sleep(lookInterval)
		f.signs("first try", f.first, 1, 0)
		if !strings.Contains(f.log.String(), "the relay does not accept the next certificate") {
			t.Errorf("logged %q, want the refusal", f.log.String())
		}
		time.Sleep(time.Minute - lookInterval)
		f.signs("too early for another", f.first, 1, 0)
		time.Sleep(lookInterval)
		f.signs("second try", f.first, 2, 0)
		f.answers(errors.New("connection refused"))
		time.Sleep(2 * time.Minute)
		f.signs("relay unreachable", f.first, 3, 0)
		time.Sleep(24 * time.Hour)
		synctest.Wait()
		f.mu.Lock()
		if f.tries > 3+3+24*4 {
			t.Errorf("asked %d times in a day, want no more than four an hour and a few at first", f.tries)
		}
		f.tries = 0
		f.mu.Unlock()
		f.answers(nil)
		time.Sleep(againMax)
		f.signs("the relay knows it", f.next, 1, 1)
	})
}

func TestFollowsWhatAPersonPublishes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, 100*time.Hour, errUnknownKey)
		_, err := f.store.Publish(true)
		ok(t, err)
		time.Sleep(lookInterval)
		f.signs("published too early", f.first, 1, 0)
		ok(t, f.store.ClearPrevious(true))
		time.Sleep(againMin)
		f.signs("there is no other key any more", f.next, 2, 1)
	})
}

// TestWaitsForTheOverlapBeforeItPublishes has a person publish what the relay does not know,
// and stage another one: the only certificate that it knows stays.
func TestWaitsForTheOverlapBeforeItPublishes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, 100*time.Hour, errUnknownKey)
		_, err := f.store.Publish(true)
		ok(t, err)
		third, err := f.store.Stage(realm, time.Now(), true)
		ok(t, err)
		time.Sleep(lookInterval)
		f.signs("the second is unknown", f.first, 1, 0)
		f.answers(nil)
		time.Sleep(certs.Overlap - 2*lookInterval)
		f.signs("the second is known", f.next, 2, 1)
		state, err := f.store.State()
		ok(t, err)
		if state.Previous == nil || state.Previous.Thumbprint != f.first {
			t.Errorf("the store has %+v, want the first one kept in its overlap", state)
		}
		time.Sleep(3 * lookInterval)
		f.signs("the overlap is over", certs.Thumbprint(third.Certificate), 3, 2)
	})
}

// TestRetiresWhenTheRelayAccepts has an agent start anew with a certificate that the relay
// does not know: the one of before stays, whose overlap is over.
func TestRetiresWhenTheRelayAccepts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, 100*time.Hour, errUnknownKey)
		_, err := f.store.Publish(true)
		ok(t, err)
		again, err := New(f.config)
		ok(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- again.Run(ctx) }() // ends with ctx
		for _, step := range []struct {
			answer error
			wait   time.Duration
			kept   bool
		}{{errUnknownKey, certs.Overlap + time.Hour, true}, {errors.New("connection refused"), time.Hour, true}, {nil, againMax + lookInterval, false}} {
			f.answers(step.answer)
			time.Sleep(step.wait)
			synctest.Wait()
			if state, err := f.store.State(); err != nil || (state.Previous != nil) != step.kept {
				t.Errorf("the relay says %v: the previous certificate is %v, %v; want it kept: %t", step.answer, state.Previous, err, step.kept)
			}
		}
		cancel()
		ok(t, <-done)
	})
}

func TestWithoutCertificate(t *testing.T) {
	store, err := certs.OpenStore(t.TempDir())
	ok(t, err)
	if _, err := New(Config{Store: store}); !errors.Is(err, certs.ErrNoCertificate) {
		t.Errorf("got %v, want %v", err, certs.ErrNoCertificate)
	}
}

func TestDocumentShowsEveryKeyInUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, time.Hour, nil)
		get := func(query string) (int, []string) {
			w := httptest.NewRecorder()
			f.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, authmetadata.Path+query, nil))
			if w.Code != http.StatusOK {
				return w.Code, nil
			}
			m, err := authmetadata.Parse(w.Body.Bytes())
			ok(t, err)
			var keys []string
			for _, c := range m.SigningCertificates() {
				keys = append(keys, certs.Thumbprint(c))
			}
			return w.Code, keys
		}
		for _, query := range []string{"", "/", "?realm=Fabrikam.com"} {
			if code, keys := get(query); code != 200 || strings.Join(keys, " ") != f.first+" "+f.next {
				t.Errorf("%q: %d, keys %v, want current and next", query, code, keys)
			}
		}
		if code, _ := get("?realm=contoso.com"); code != http.StatusNotFound {
			t.Errorf("another realm: %d, want 404", code)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if _, keys := get(""); strings.Join(keys, " ") != f.next+" "+f.first {
			t.Errorf("after the roll-over: keys %v, want the new one and the previous", keys)
		}
	})
}
