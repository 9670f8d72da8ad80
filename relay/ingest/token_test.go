package ingest

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"badgerelay/auth"
	"badgerelay/auth/authtest"
	pb "badgerelay/proto/badgerelay/v1"
	"badgerelay/relay/internal/service"
	"badgerelay/relay/registry"
)

// hostile returns every hostile token that authtest makes for an organization.
func (o *organization) hostile() []authtest.Token {
	return authtest.Hostile(o.key, o.name, time.Now())
}

// wantTokenRefusal checks that a call was refused for what is wrong with its
// token, and tells nothing of it.
func wantTokenRefusal(t *testing.T, token authtest.Token, err error) {
	t.Helper()
	want := service.ToStatus(&auth.TokenError{Reason: token.Reason})
	if status.Code(err) != status.Code(want) || reasonOf(err) != reasonOf(want) {
		t.Errorf("%s: got %v with reason %q, want %v with %q", token.Name, err, reasonOf(err), want, reasonOf(want))
	}
	if len(token.Token) > 20 && strings.Contains(status.Convert(err).String(), token.Token[:20]) {
		t.Errorf("%s: the answer quotes the token", token.Name)
	}
}

// TestHostileTokens opens calls with every hostile token there is.
func TestHostileTokens(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		o := w.enrol("fabrikam.com", testKey(0))
		for _, token := range o.hostile() {
			if token.Token == "" || strings.ContainsFunc(token.Token, func(r rune) bool { return r <= ' ' || r > '~' }) {
				continue // no header can carry it; a fresh token can, below
			}
			ctx := withToken(t.Context(), token.Token)
			_, err := w.publish(ctx, &pb.Event{Mailbox: "ann"})
			wantTokenRefusal(t, token, err)
			stream, err := pb.NewRelayServiceClient(w.conn).Stream(ctx)
			if err == nil {
				_, err = stream.Recv()
			}
			wantTokenRefusal(t, token, err)
		}
		if l := w.relay.Ledger(); l.Accepted != 0 {
			t.Errorf("%d events were accepted", l.Accepted)
		}
	})
}

// TestHostileTokensOnEveryMethod takes one token of each reason.
func TestHostileTokensOnEveryMethod(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		o := w.enrol("fabrikam.com", testKey(0))
		seen := map[auth.Reason]bool{}
		for _, token := range o.hostile() {
			if seen[token.Reason] || token.Token == "" {
				continue
			}
			seen[token.Reason] = true
			for _, method := range allMethods() {
				wantTokenRefusal(t, token, w.callRaw(withToken(t.Context(), token.Token), method, nil))
			}
		}
	})
}

// TestHostileFreshTokens hands every hostile token in on an open stream.
func TestHostileFreshTokens(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		o := w.enrol("fabrikam.com", testKey(0))
		for _, token := range o.hostile() {
			a := o.connect()
			a.freshToken(token.Token)
			_, err := a.stream.Recv()
			wantTokenRefusal(t, token, err)
		}
	})
}

// refusedAfter is the first moment after its exp at which a token is refused.
const refusedAfter = auth.DefaultSkew + time.Nanosecond

// TestClockSkew has every kind of call take a token as long as any other does: its
// exp has passed, and the time for which clocks may differ has not.
func TestClockSkew(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		o := w.enrol("fabrikam.com", testKey(0))
		token, exp := o.token(time.Hour), time.Now().Add(time.Hour)
		renewed := o.connect()
		time.Sleep(time.Hour + 100*time.Second)
		ctx := withToken(t.Context(), token)
		client := pb.NewSubscriptionServiceClient(w.conn)

		late := w.open(token)
		late.hello()
		if got := late.welcome().GetTokenExpiresAt().AsTime(); !got.Equal(exp) {
			t.Errorf("the welcome says %v, want exp, %v: a time to renew before", got, exp)
		}
		renewed.freshToken(token)
		if got := renewed.receive().GetTokenAccepted().GetTokenExpiresAt().AsTime(); !got.Equal(exp) {
			t.Errorf("the fresh token expires at %v, want exp, %v", got, exp)
		}
		watch, err := client.WatchMailboxes(ctx, &pb.WatchMailboxesRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if m, err := watch.Recv(); err != nil || !m.GetComplete() {
			t.Errorf("watching: %v and %v, want the list of no mailbox", m, err)
		}
		imports, err := client.ImportSubscriptions(ctx)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Until(exp.Add(auth.DefaultSkew - time.Second)))
		for _, a := range []*agent{late, renewed} {
			a.batch(1, &pb.Event{Mailbox: "ann"})
			a.settled(1)
		}
		time.Sleep(time.Until(exp.Add(auth.DefaultSkew)))
		if _, err := w.publish(ctx, &pb.Event{Mailbox: "ann"}); err != nil {
			t.Errorf("publish: %v", err)
		}

		time.Sleep(time.Nanosecond)
		late.ends(codes.Unauthenticated, "TOKEN_EXPIRED")
		renewed.ends(codes.Unauthenticated, "TOKEN_EXPIRED")
		_, err = watch.Recv()
		wantRefusal(t, err, codes.Unauthenticated, "TOKEN_EXPIRED")
		wantRefusal(t, imports.RecvMsg(&pb.ImportSubscriptionsResponse{}), codes.Unauthenticated, "TOKEN_EXPIRED")
		_, err = w.publish(ctx, &pb.Event{Mailbox: "ann"})
		wantRefusal(t, err, codes.Unauthenticated, "TOKEN_EXPIRED")
		if got := time.Since(exp); got != refusedAfter {
			t.Errorf("ended %v after exp, want %v", got, refusedAfter)
		}
	})
}

// TestRefusedTokensInTheLog sees that the log tells of an organization's own
// bad tokens, but not of what strangers send, and of no token's content.
func TestRefusedTokensInTheLog(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		o := w.enrol("fabrikam.com", testKey(0))
		off := false
		if _, err := w.registry.UpdateOrganization(t.Context(), o.name, registry.OrganizationUpdate{Enabled: &off}); err != nil {
			t.Fatal(err)
		}
		token := o.token(time.Hour)
		for _, raw := range []string{token, "stranger"} {
			_, _ = w.publish(withToken(t.Context(), raw), &pb.Event{Mailbox: "ann"})
		}
		log := w.log.String()
		if strings.Count(log, "token refused") != 1 || !strings.Contains(log, "organization_disabled") || !strings.Contains(log, "fabrikam.com") {
			t.Errorf("got log %q, want one line about the disabled organization", log)
		}
		if strings.Contains(log, token[len(token)-20:]) || strings.Contains(log, token[:20]) {
			t.Error("the log holds the token")
		}
	})
}

// absentRegistry is a registry that is away at times.
type absentRegistry struct {
	AgentRegistry
	away atomic.Bool
}

func (r *absentRegistry) CredentialsByX5T(ctx context.Context, x5t [20]byte) ([]auth.Credential, error) {
	if r.away.Load() {
		return nil, registry.ErrUnavailable
	}
	return r.AgentRegistry.CredentialsByX5T(ctx, x5t)
}

// TestFreshTokenWhileTheRegistryIsAway hands tokens in that nobody can look at: the stream
// goes on with the one it has, to its end, and takes the newest when the registry is back.
func TestFreshTokenWhileTheRegistryIsAway(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var away absentRegistry
		w := newWorld(t, func(c *Config) { away.AgentRegistry, c.Registry = c.Registry, &away })
		o := w.enrol("fabrikam.com", testKey(0))
		second, err := w.registry.AddCredential(t.Context(), o.id, registry.NewCredential{Certificate: testKey(2).Certificate.Raw})
		if err != nil {
			t.Fatal(err)
		}
		rolled := *o
		rolled.key, rolled.credential = testKey(2), second.ID
		began := time.Now()
		revoked := o.connect()
		lasting, foreign, ending := o.connect(), o.connect(), o.connect()
		away.away.Store(true)
		for _, a := range []*agent{lasting, foreign, ending} {
			a.freshToken(o.token(2 * time.Hour))
			a.batch(1, &pb.Event{Mailbox: "ann"})
			a.settled(1)
		}
		revoked.freshToken(rolled.token(time.Hour))
		time.Sleep(time.Minute)
		if err := w.registry.RemoveCredential(t.Context(), o.id, rolled.credential); err != nil {
			t.Fatal(err)
		}
		revoked.ends(codes.Unauthenticated, "CREDENTIAL_REVOKED")
		handedIn := time.Now()
		lasting.freshToken(o.token(3 * time.Hour))
		foreign.freshToken(w.enrol("contoso.com", testKey(1)).token(time.Hour))
		synctest.Wait()
		foreign.ends(codes.Unauthenticated, "TOKEN_REALM") // for that the registry is not asked

		away.away.Store(false)
		back := time.Now()
		if got := lasting.receive().GetTokenAccepted().GetTokenExpiresAt().AsTime(); !got.Equal(handedIn.Add(3 * time.Hour).Truncate(time.Second)) {
			t.Errorf("accepted a token that expires %v after the newest was handed in, want 3h", got.Sub(handedIn))
		}
		if got := time.Since(back); got > renewInterval {
			t.Errorf("accepted after %v, want soon after the registry is back", got)
		}
		if ending.receive().GetTokenAccepted() == nil {
			t.Error("the token of the third stream is not accepted")
		}

		away.away.Store(true)
		ending.freshToken(o.token(4 * time.Hour))
		time.Sleep(time.Until(began.Add(2*time.Hour + auth.DefaultSkew)))
		lasting.batch(2, &pb.Event{Mailbox: "ann"})
		lasting.settled(2)
		time.Sleep(time.Nanosecond)
		ending.ends(codes.Unavailable, "REGISTRY_UNAVAILABLE") // which is not the token's fault
	})
}

// TestRegistryGoneIsNotTheTokensFault closes the registry under a call.
func TestRegistryGoneIsNotTheTokensFault(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		o := w.enrol("fabrikam.com", testKey(0))
		unknown, known := o.token(time.Hour), o.token(2*time.Hour)
		if _, err := w.publish(withToken(t.Context(), known), &pb.Event{Mailbox: "ann"}); err != nil {
			t.Fatal(err)
		}
		if err := w.registry.Close(); err != nil {
			t.Fatal(err)
		}
		for _, token := range []string{unknown, known} {
			ctx, cancel := context.WithTimeout(withToken(t.Context(), token), time.Minute)
			_, err := pb.NewSubscriptionServiceClient(w.conn).ListSubscriptions(ctx, &pb.ListSubscriptionsRequest{})
			wantRefusal(t, err, codes.Unavailable, "REGISTRY_UNAVAILABLE")
			cancel()
		}
	})
}
