package agent

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	badgerelayv1 "badgerelay/proto/badgerelay/v1"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// counted is a token source that makes token-1, token-2 and so on.
type counted struct {
	mu     sync.Mutex // guards what follows
	n      int
	unlike []string
	life   time.Duration
	err    error
}

func (c *counted) Token(_ context.Context, unlike string) (string, time.Time, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.unlike = append(c.unlike, unlike)
	if c.err != nil {
		return "", time.Time{}, c.err
	}
	c.n++
	return fmt.Sprint("token-", c.n), time.Now().Add(c.life), nil
}

func (c *counted) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err = err
}

// TestRenewTokenWhileOneIsMade changes the key while a token of the old one is made.
func TestRenewTokenWhileOneIsMade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		signed := make(chan string)
		tokens := newTokens(TokenFunc(func(context.Context, string) (string, time.Time, error) {
			return <-signed, time.Now().Add(time.Hour), nil
		}), true)
		first := make(chan struct{})
		go func() { // ends when its token is signed
			defer close(first)
			if b, err := tokens.get(t.Context()); err != nil || b.token != "old" {
				t.Errorf("token %q, error %v", b.token, err)
			}
		}()
		synctest.Wait()
		tokens.discard()
		signed <- "old"
		<-first
		go func() { signed <- "new" }() // ends when a token is asked for
		if b, err := tokens.get(t.Context()); err != nil || b.token != "new" {
			t.Errorf("a call begins with the token of the %s key, error %v", b.token, err)
			<-signed
		}
	})
}

func TestHandsInFreshTokenBeforeExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newFakeNet(t)
		relay := network.start("a")
		cfg := network.config("a")
		cfg.Token = &counted{life: time.Hour}
		h := run(t, cfg)
		s := relay.welcome(&badgerelayv1.Welcome{TokenExpiresAt: timestamppb.New(time.Now().Add(time.Hour))})
		if got, want := s.token, "Bearer token-1"; got != want {
			t.Fatalf("opened with %q, want %q", got, want)
		}
		began := time.Now()
		if got, want := s.recv().GetFreshToken().GetToken(), "token-2"; got != want {
			t.Fatalf("fresh token %q, want %q", got, want)
		}
		if got, want := time.Since(began), 55*time.Minute; got != want {
			t.Fatalf("fresh token after %v, want %v: five minutes before expiry", got, want)
		}
		s.accepted(time.Now().Add(20 * time.Minute)) // the credential ends then
		began = time.Now()
		if got, want := s.recv().GetFreshToken().GetToken(), "token-3"; got != want {
			t.Fatalf("fresh token %q, want %q", got, want)
		}
		if got, want := time.Since(began), 16*time.Minute; got != want {
			t.Fatalf("next fresh token after %v, want %v: four fifths of what the relay granted", got, want)
		}
		h.wantFailures()
	})
}

func TestRenewTokenKeepsTheStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newFakeNet(t)
		relay := network.start("a")
		cfg := network.config("a")
		cfg.Token = &counted{life: time.Hour}
		h := run(t, cfg)
		s := relay.welcome(&badgerelayv1.Welcome{TokenExpiresAt: timestamppb.New(time.Now().Add(time.Hour))})
		began := time.Now()
		h.a.RenewToken()
		if got, want := s.recv().GetFreshToken().GetToken(), "token-2"; got != want || time.Since(began) != 0 {
			t.Fatalf("fresh token %q after %v, want %q at once", got, time.Since(began), want)
		}
		s.accepted(time.Now().Add(time.Hour))
		if got, want := s.recv().GetFreshToken().GetToken(), "token-3"; got != want || time.Since(began) != 55*time.Minute {
			t.Fatalf("fresh token %q after %v, want %q when the second runs out", got, time.Since(began), want)
		}
		h.wantFailures()
	})
}

func TestTokenSourceFailsWhileTheStreamIsOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newFakeNet(t)
		relay := network.start("a")
		cfg := network.config("a")
		source := &counted{life: time.Hour}
		cfg.Token = source
		h := run(t, cfg)
		s := relay.welcome(&badgerelayv1.Welcome{})
		source.fail(errors.New("key gone"))
		time.Sleep(57 * time.Minute)
		h.set("ann", 1)
		s.batch(1, "ann=1") // the old token still holds
		source.fail(nil)
		if got, want := s.recv().GetFreshToken().GetToken(), "token-2"; got != want {
			t.Fatalf("fresh token %q, want %q", got, want)
		}
		h.wantFailures()
	})
}

func refusal(code codes.Code, reason string, details ...protoadapt.MessageV1) error {
	details = append(details, protoadapt.MessageV1Of(&errdetails.ErrorInfo{Domain: "badgerelay", Reason: reason}))
	st, err := status.New(code, reason).WithDetails(details...)
	if err != nil {
		panic(err) // the test's own mistake
	}
	return st.Err()
}

func TestUnauthenticatedAsksForAnotherTokenAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newFakeNet(t)
		relay := network.start("a")
		cfg := network.config("a")
		source := &counted{life: time.Hour}
		cfg.Token = source
		h := run(t, cfg)
		began := time.Now()
		relay.accept().end <- refusal(codes.Unauthenticated, "TOKEN_EXPIRED")
		s := relay.welcome(&badgerelayv1.Welcome{})
		if got, want := s.token, "Bearer token-2"; got != want || time.Since(began) != 0 {
			t.Fatalf("second attempt with %q after %v, want %q at once", got, time.Since(began), want)
		}
		if got, want := fmt.Sprint(source.unlike), "[ token-1]"; got != want {
			t.Fatalf("source was asked for tokens unlike %v, want %v", got, want)
		}
		if f := h.wantFailures(FailureToken)[0]; f.Reason != "TOKEN_EXPIRED" {
			t.Fatalf("reason %q, want TOKEN_EXPIRED", f.Reason)
		}
	})
}

func TestUnauthenticatedAgainBacksOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newFakeNet(t)
		relay := network.start("a")
		cfg := network.config("a")
		cfg.Token = &counted{life: time.Hour}
		run(t, cfg)
		for range 2 {
			relay.accept().end <- refusal(codes.Unauthenticated, "TOKEN_KEY_UNKNOWN")
		}
		relay.quiet(200*time.Millisecond, "the fresh token was refused as well")
	})
}
