package auth

import (
	"fmt"
	"log/slog"
)

// Reason says why a token was refused. Its string is the metric label.
// Every refusal has exactly one; Category folds them into the few that an
// agent is told.
type Reason uint8

// The reasons, in the order in which a token meets them.
const (
	// ReasonMissing: the call carries no bearer token.
	ReasonMissing Reason = iota
	// ReasonTooLarge: the token, its header or its payload is over its limit.
	ReasonTooLarge
	// ReasonMalformed: dots, base64url, JSON, UTF-8, duplicates, nesting.
	ReasonMalformed
	// ReasonKind: a token of a kind that is never accepted: outer tokens,
	// identity and callback tokens, requests to a token service.
	ReasonKind
	// ReasonAlgorithm: alg is not exactly RS256.
	ReasonAlgorithm
	// ReasonHeader: a header member is forbidden, missing or of the wrong form.
	ReasonHeader
	// ReasonClaims: a claim is missing or of the wrong form.
	ReasonClaims
	// ReasonSpan: the token is valid for longer than the limit.
	ReasonSpan
	// ReasonExpired: exp has passed by more than the skew.
	ReasonExpired
	// ReasonNotYetValid: nbf is ahead by more than the skew.
	ReasonNotYetValid
	// ReasonAudience: aud names another principal or authority.
	ReasonAudience
	// ReasonKeyUnknown: no registered credential has this x5t.
	ReasonKeyUnknown
	// ReasonKeyUnfit: the registered key breaks the rules for keys.
	ReasonKeyUnfit
	// ReasonSignature: no key with this x5t verifies the signature.
	ReasonSignature
	// ReasonKeyNotYetValid: the credential or its certificate has not started.
	ReasonKeyNotYetValid
	// ReasonKeyExpired: the credential or its certificate has ended.
	ReasonKeyExpired
	// ReasonRealm: a realm is not the organization of the key.
	ReasonRealm
	// ReasonOrganizationDisabled: the token is good, its organization is off.
	ReasonOrganizationDisabled

	reasonCount
)

// reasons has, for each reason, its label and what an agent is told about it.
var reasons = [reasonCount]struct {
	label    string
	category Reason
}{
	ReasonMissing:              {"missing", ReasonMissing},
	ReasonTooLarge:             {"too_large", ReasonMalformed},
	ReasonMalformed:            {"malformed", ReasonMalformed},
	ReasonKind:                 {"kind", ReasonKind},
	ReasonAlgorithm:            {"algorithm", ReasonMalformed},
	ReasonHeader:               {"header", ReasonMalformed},
	ReasonClaims:               {"claims", ReasonMalformed},
	ReasonSpan:                 {"span", ReasonMalformed},
	ReasonExpired:              {"expired", ReasonExpired},
	ReasonNotYetValid:          {"not_yet_valid", ReasonNotYetValid},
	ReasonAudience:             {"audience", ReasonAudience},
	ReasonKeyUnknown:           {"key_unknown", ReasonKeyUnknown},
	ReasonKeyUnfit:             {"key_unfit", ReasonKeyUnknown},
	ReasonSignature:            {"signature", ReasonSignature},
	ReasonKeyNotYetValid:       {"key_not_yet_valid", ReasonNotYetValid},
	ReasonKeyExpired:           {"key_expired", ReasonExpired},
	ReasonRealm:                {"realm", ReasonRealm},
	ReasonOrganizationDisabled: {"organization_disabled", ReasonOrganizationDisabled},
}

// texts has one generic text per category. Nothing of the token goes into it.
var texts = [reasonCount]string{
	ReasonMissing:              "no bearer token",
	ReasonMalformed:            "token breaks a rule of form",
	ReasonKind:                 "token is of a kind that is not accepted",
	ReasonExpired:              "token or its key has expired",
	ReasonNotYetValid:          "token or its key is not valid yet",
	ReasonAudience:             "token is meant for another audience",
	ReasonKeyUnknown:           "token's key is not registered",
	ReasonSignature:            "token's signature does not verify",
	ReasonRealm:                "token names another realm than its key's organization",
	ReasonOrganizationDisabled: "organization is disabled",
}

// Reasons lists every reason in order.
func Reasons() []Reason {
	all := make([]Reason, reasonCount)
	for i := range all {
		all[i] = Reason(i)
	}
	return all
}

// String returns the metric label.
func (r Reason) String() string {
	if r >= reasonCount {
		return fmt.Sprintf("reason(%d)", uint8(r))
	}
	return reasons[r].label
}

// Category folds r into what an agent is told: one of ReasonMissing,
// ReasonMalformed, ReasonKind, ReasonExpired, ReasonNotYetValid,
// ReasonAudience, ReasonKeyUnknown, ReasonSignature, ReasonRealm and
// ReasonOrganizationDisabled.
func (r Reason) Category() Reason {
	if r >= reasonCount {
		return ReasonMalformed
	}
	return reasons[r].category
}

// TokenError is a refused token. Its text is the generic one of the reason's
// category and may be shown to the caller; its fields are for the log and
// never hold any part of the token but the x5t.
type TokenError struct {
	Reason Reason
	// X5T is the thumbprint that the header named; zero if parsing did not
	// get that far.
	X5T [20]byte
	// Organization is the owner of the key that verified the token, and empty
	// where none did.
	Organization string

	detail string
}

// Error returns the generic text of the category.
func (e *TokenError) Error() string { return texts[e.Reason.Category()] }

// Detail says which rule was broken, in constant words of ours, for the log
// of the relay. It holds nothing of the token.
func (e *TokenError) Detail() string { return e.detail }

// LogValue gives the log what it may know of a refusal.
func (e *TokenError) LogValue() slog.Value {
	attrs := []slog.Attr{slog.String("reason", e.Reason.String()), slog.String("detail", e.detail)}
	if e.X5T != [20]byte{} {
		attrs = append(attrs, slog.String("x5t", fmt.Sprintf("%X", e.X5T)))
	}
	if e.Organization != "" {
		attrs = append(attrs, slog.String("organization", e.Organization))
	}
	return slog.GroupValue(attrs...)
}

// refuse makes a refusal. The detail is a constant.
func refuse(r Reason, detail string) *TokenError { return &TokenError{Reason: r, detail: detail} }
