package authmetadata_test

import (
	"context"
	"crypto/x509"
	"errors"
	"log/slog"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"badgerelay/auth/authmetadata"
	"badgerelay/auth/authtest"
)

func TestFollower(t *testing.T) {
	base := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
	first, second := authtest.NewKey(realm, base), authtest.NewKey("second", base)
	source := authmetadata.Source{OrganizationID: 7, Organization: "Fabrikam.com", URL: "https://mail.fabrikam.com/metadata/json/1"}
	synctest.Test(t, func(t *testing.T) {
		var fetches, found atomic.Int64
		var published atomic.Pointer[authmetadata.Document] // nil: the server is down
		var refuse atomic.Bool
		show := func(keys ...*authtest.Key) {
			m := document()
			for _, k := range keys {
				m.Keys = append(m.Keys, authmetadata.SigningKey(k.Certificate))
			}
			published.Store(&m)
		}
		client := &http.Client{Transport: roundTrip(func(*http.Request) (*http.Response, error) {
			fetches.Add(1)
			m := published.Load()
			if m == nil {
				return nil, errors.New("down")
			}
			data, err := m.Marshal()
			return answer(func(w http.ResponseWriter) { _, _ = w.Write(data) }), err
		})}
		f, err := authmetadata.NewFollower(authmetadata.FollowerConfig{
			Sources: sourcesOf(source), Client: client, Logger: slog.New(slog.DiscardHandler),
			Found: func(_ context.Context, got authmetadata.Source, _ *x509.Certificate) error {
				if got != source {
					t.Errorf("got source %v, want %v", got, source)
				}
				if refuse.Load() {
					return errors.New("registry is gone")
				}
				found.Add(1)
				return nil
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- f.Run(ctx) }()
		want := func(what string, wantFetches, wantFound int64) {
			t.Helper()
			synctest.Wait()
			if fetches.Load() != wantFetches || found.Load() != wantFound {
				t.Errorf("%s: got %d fetches and %d keys, want %d and %d", what, fetches.Load(), found.Load(), wantFetches, wantFound)
			}
		}
		hint := func() { f.KeyUnknown([20]byte{}, realm) }

		want("at start, server down", 1, 0)
		show(first)
		hint()
		want("a hint too early waits", 1, 0)
		time.Sleep(30*time.Minute - time.Nanosecond)
		want("just before the early interval", 1, 0)
		time.Sleep(time.Nanosecond)
		want("at the early interval", 2, 1)
		f.KeyUnknown([20]byte{}, "stranger.example")
		want("a realm nobody follows", 2, 1)
		time.Sleep(8*time.Hour - time.Nanosecond)
		want("just before the interval", 2, 1)
		time.Sleep(time.Nanosecond)
		want("the same document again", 3, 1)

		show(first, second)
		refuse.Store(true)
		time.Sleep(time.Hour)
		hint()
		want("an early fetch at once, not registered", 4, 1)
		refuse.Store(false)
		for range 1000 {
			hint()
		}
		want("a flood of hints waits", 4, 1)
		time.Sleep(30 * time.Minute)
		want("then handed again", 5, 2)
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: got %v, want nil", err)
		}
	})
}

func TestFollowerLooksAtNewSourcesAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var lists, fetches atomic.Int64
		var sources atomic.Pointer[[]authmetadata.Source]
		sources.Store(&[]authmetadata.Source{})
		f, err := authmetadata.NewFollower(authmetadata.FollowerConfig{
			Sources: func(context.Context) ([]authmetadata.Source, error) {
				lists.Add(1)
				return *sources.Load(), nil
			},
			Found: func(context.Context, authmetadata.Source, *x509.Certificate) error { return nil },
			Client: &http.Client{Transport: roundTrip(func(*http.Request) (*http.Response, error) {
				fetches.Add(1)
				return nil, errors.New("down")
			})},
			Logger: slog.New(slog.DiscardHandler),
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- f.Run(ctx) }()
		want := func(what string, wantLists, wantFetches int64) {
			t.Helper()
			synctest.Wait()
			if lists.Load() != wantLists || fetches.Load() != wantFetches {
				t.Errorf("%s: got %d lists and %d fetches, want %d and %d", what, lists.Load(), fetches.Load(), wantLists, wantFetches)
			}
		}
		want("nobody to follow", 1, 0)
		time.Sleep(time.Minute)
		sources.Store(&[]authmetadata.Source{{OrganizationID: 7, Organization: "fabrikam.com", URL: "https://mail.fabrikam.com/"}})
		f.SourcesChanged()
		want("a new one", 2, 1)
		for range 100 {
			f.SourcesChanged()
			synctest.Wait()
		}
		want("many changes at once", 2, 1)
		time.Sleep(time.Second)
		want("a second later", 3, 1)
		time.Sleep(10*time.Minute - time.Nanosecond)
		want("without a change", 3, 1)
		time.Sleep(time.Nanosecond)
		want("as ever", 4, 1)
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run returned %v", err)
		}
	})
}
