package authgrpc_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"badgerelay/auth"
	"badgerelay/auth/authgrpc"
	"badgerelay/auth/authtest"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
)

const realm = "fabrikam.com"

// withAuthorization returns a context as a call with these values has it.
func withAuthorization(ctx context.Context, values ...string) context.Context {
	return metadata.NewIncomingContext(ctx, metadata.MD{"authorization": values})
}

type fakeStream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s fakeStream) Context() context.Context { return s.ctx }

func TestInterceptors(t *testing.T) {
	now := time.Now()
	key := authtest.NewKey(realm, now)
	keys := &authtest.Keys{}
	keys.Set(key.Credential("c1", 7, realm))
	v, err := auth.NewValidator(auth.Config{Keys: keys, Principal: authtest.Principal, Authorities: []string{authtest.Authority}})
	if err != nil {
		t.Fatal(err)
	}
	token := authtest.Good(key, realm, now)
	errStatus := errors.New("status")
	var refusal *auth.TokenError
	toStatus := func(err error) error {
		refusal, _ = errors.AsType[*auth.TokenError](err)
		return errStatus
	}
	skip := func(method string) bool { return method == "/grpc.health.v1.Health/Check" }
	unary, stream := authgrpc.UnaryInterceptor(v, toStatus, skip), authgrpc.StreamInterceptor(v, toStatus, skip)

	const method = "/badgerelay.v1.RelayService/Publish"
	for _, test := range []struct {
		name, method string
		values       []string
		passes       bool
		reason       auth.Reason
	}{
		{"good", method, []string{"Bearer " + token}, true, 0},
		{"lower case, more spaces", method, []string{"bearer   " + token}, true, 0},
		{"no metadata", method, nil, false, auth.ReasonMissing},
		{"no scheme", method, []string{token}, false, auth.ReasonMissing},
		{"other scheme", method, []string{"Basic eA=="}, false, auth.ReasonMissing},
		{"no token", method, []string{"Bearer "}, false, auth.ReasonMissing},
		{"two", method, []string{"Bearer " + token, "Bearer " + token}, false, auth.ReasonMalformed},
		{"bad", method, []string{"Bearer x"}, false, auth.ReasonMalformed},
		{"space behind", method, []string{"Bearer " + token + " "}, false, auth.ReasonMalformed},
		{"health", "/grpc.health.v1.Health/Check", nil, true, 0},
	} {
		ctx := withAuthorization(t.Context(), test.values...)
		check := func(kind string, ctx context.Context, err error) {
			t.Helper()
			if test.passes {
				p, ok := auth.PrincipalFrom(ctx)
				if err != nil || ok != (test.method == method) || (ok && p.Organization != realm) {
					t.Errorf("%s, %s: got %v and %v, want the principal", test.name, kind, p, err)
				}
				return
			}
			if !errors.Is(err, errStatus) || refusal == nil || refusal.Reason != test.reason || ctx != nil {
				t.Errorf("%s, %s: got %v for %v, want it refused for %v", test.name, kind, err, refusal, test.reason)
			}
		}
		var seen context.Context
		_, err := unary(ctx, nil, &grpc.UnaryServerInfo{FullMethod: test.method}, func(ctx context.Context, _ any) (any, error) {
			seen = ctx
			return nil, nil
		})
		check("unary", seen, err)
		seen = nil
		err = stream(nil, fakeStream{ctx: ctx}, &grpc.StreamServerInfo{FullMethod: test.method}, func(_ any, s grpc.ServerStream) error {
			seen = s.Context()
			return nil
		})
		check("stream", seen, err)
	}
}
