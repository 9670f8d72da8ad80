package auth

import (
	"context"
	"strings"

	"badgerelay/auth/audience"
)

// Authenticate is Validate for the values of a call's authorization header, of
// which there has to be one: a bearer token.
func (v *Validator) Authenticate(ctx context.Context, authorization []string) (*Principal, error) {
	token, refusal := bearer(authorization)
	if refusal != nil {
		v.metrics.refused(refusal.Reason)
		return nil, refusal
	}
	return v.Validate(ctx, token)
}

// bearer reads the token of a call. RFC 6750, section 2.1 (read 2026-11): the
// scheme compares case-insensitively and one or more spaces follow it.
func bearer(values []string) (string, *TokenError) {
	if len(values) == 0 {
		return "", refuse(ReasonMissing, "no authorization metadata")
	}
	if len(values) > 1 {
		return "", refuse(ReasonMalformed, "several authorization values")
	}
	scheme, token, _ := strings.Cut(values[0], " ")
	token = strings.TrimLeft(token, " ")
	if !audience.Equal(scheme, "bearer") || token == "" {
		return "", refuse(ReasonMissing, "authorization is not a bearer token")
	}
	return token, nil
}
