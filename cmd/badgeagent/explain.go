package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"

	"badgerelay/auth/authmetadata"
	"badgerelay/cmd/internal/command"
	"badgerelay/relay/agent"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// explain says what a relay's refusal means, and what to do about it.
func (s *settings) explain(err error) error { return s.explainAt(strings.Join(s.relays, ", "), err) }

// explainAt does so for what came from some addresses.
func (s *settings) explainAt(where string, err error) error {
	if err == nil {
		return nil
	}
	f := agent.Explain(err)
	if f.Reason == "FIELD_INVALID" { // what was given breaks a rule, which the relay names
		field, rule, _ := strings.Cut(f.Text(), ": ")
		if flag := flagOf[field]; flag != "" {
			return command.Invalidf("%s %s", flag, rule)
		}
		return command.Invalid(explain(err, "the relay refuses the call"))
	}
	if advice, ok := adviceFor(f, s); ok {
		return explain(err, "%s", advice)
	}
	st, ok := status.FromError(err)
	late := errors.Is(err, context.DeadlineExceeded) || ok && st.Code() == codes.DeadlineExceeded
	switch {
	case late && strings.Contains(err.Error(), "waiting for connections"): // gRPC says so where there was none
		return command.Unreached(explain(err, "%s", s.unreachableAdvice(where, st.Message())))
	case late:
		return command.Unreached(explain(err, "the relay at %s has not answered in time", where))
	case !ok:
		return err
	case st.Code() == codes.Unavailable, strings.Contains(st.Message(), "unexpected HTTP status"):
		return command.Unreached(explain(err, "%s", s.unreachableAdvice(where, st.Message())))
	}
	return explain(err, "the call ended as %s", st.Code())
}

// flagOf has the flags that stand for fields of requests in every command.
var flagOf = map[string]string{"device_token": "--device-token", "app": "--app", "mailboxes": "--mailbox"}

// unreachableAdvice says what to do where no relay answers at some addresses; text is
// how gRPC, or the system, puts it.
func (s *settings) unreachableAdvice(where, text string) string {
	switch {
	case strings.Contains(text, "x509: certificate signed by unknown authority"):
		return unknownAuthority("the relay at "+where, s.ca)
	case strings.Contains(text, "x509: "):
		return fmt.Sprintf("the certificate of the relay at %s can't be accepted; check the relay's address and this machine's clock, and tell its operator", where)
	case strings.Contains(text, "unexpected HTTP status"), strings.Contains(text, "unexpected content-type"),
		strings.Contains(text, "first record does not look like a TLS handshake"), strings.Contains(text, "error reading server preface"),
		strings.Contains(text, "tls: no application protocol"):
		return fmt.Sprintf("what answers at %s is no relay; check the port of --relay, or what 'badgeagent auth-server show' says", where)
	case strings.Contains(text, "connection refused"):
		return fmt.Sprintf("no relay listens at %s; check the address, and ask its operator whether it runs", where)
	case strings.Contains(text, "no such host"), strings.Contains(text, "produced zero addresses"):
		return fmt.Sprintf("there is no host of the name in %s; check the relay's address", where)
	}
	return fmt.Sprintf("no relay answers at %s; check the address, and firewalls on the way", where)
}

// unknownAuthority says what to do where a certificate is signed by none of the
// authorities in a file; empty: of the machine's.
func unknownAuthority(who, ca string) string {
	if ca == "" {
		return fmt.Sprintf("the certificate of %s is signed by an authority that this machine does not know; name its file with --ca, once and for all to 'badgeagent auth-server set'", who)
	}
	return fmt.Sprintf("the certificate of %s is signed by none of the authorities in %s; ask its operator for the right file, or, if a public authority signs it now, run 'badgeagent auth-server set' with --ca ''", who, ca)
}

// explainMetadata says what to do where a metadata document could not be fetched
// with the authorities in a file; empty: the machine's.
func explainMetadata(err error, address, ca string) error {
	if err == nil {
		return nil
	}
	host := address
	if u, parsed := url.Parse(address); parsed == nil {
		host = u.Host
	}
	if answered, ok := errors.AsType[*authmetadata.StatusError](err); ok {
		switch answered.StatusCode {
		case http.StatusUnsupportedMediaType: // gRPC's answer to what is no gRPC
			return explain(err, "%s is where the relay takes counts; its metadata document is at another port, which its operator knows (metadata.address in the relay's configuration)", host)
		case http.StatusNotFound:
			return explain(err, "%s has no metadata document at this path; that of a relay is /metadata/json/1", host)
		}
		return explain(err, "%s has no metadata document; check --metadata-url", host)
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return command.Unreached(explain(err, "%s", unknownAuthority(host, ca)))
	}
	if _, ok := errors.AsType[x509.HostnameError](err); ok {
		return command.Unreached(explain(err, "the certificate does not name %s; check the name in --metadata-url, and tell the relay's operator if it is right", host))
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return command.Unreached(explain(err, "the certificate of %s can't be accepted; check this machine's clock, and tell the relay's operator", host))
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok || strings.Contains(err.Error(), "server gave HTTP response to HTTPS client") {
		return command.Unreached(explain(err, "%s speaks no TLS; check the port in --metadata-url", host))
	}
	if _, ok := errors.AsType[*net.OpError](err); ok || errors.Is(err, context.DeadlineExceeded) {
		return command.Unreached(explain(err, "nothing answers at %s; check --metadata-url", host))
	}
	return err
}

func adviceFor(f agent.Failure, s *settings) (string, bool) {
	switch f.Reason {
	case "TOKEN_KEY_UNKNOWN", "TOKEN_SIGNATURE", "CREDENTIAL_REVOKED":
		return fmt.Sprintf("the relay does not accept this certificate's key; have its operator register the exported certificate, thumbprint %s", s.certificate.Thumbprint()), true
	case "TOKEN_EXPIRED", "TOKEN_NOT_YET_VALID":
		return "the token is outside its time at the relay; check this machine's clock and the registered credential's start and end", true
	case "TOKEN_AUDIENCE":
		return "the token is meant for another relay; run 'badgeagent auth-server set' again", true
	case "TOKEN_REALM":
		return fmt.Sprintf("the key is registered for another organization than %s; run 'badgeagent auth-server set' with the right realm in the address, or have the relay's operator register the certificate for %[1]s", s.organization), true
	case "ORGANIZATION_DISABLED":
		return fmt.Sprintf("the relay's operator has disabled %s", s.organization), true
	case "APP_UNKNOWN", "APP_NOT_ALLOWED":
		return fmt.Sprintf("the relay does not have the app, or not for %s; check the app's name with the relay's operator", s.organization), true
	case "LIMIT_REACHED", "QUOTA_EXCEEDED":
		return fmt.Sprintf("%s is at a limit that the relay's operator has set", s.organization), true
	case "PRODUCT_TOO_OLD":
		return "the mail server product is older than the relay supports", true
	case "REGISTRY_UNAVAILABLE", "INTERNAL":
		return "the relay has a problem of its own; tell its operator", true
	}
	return "", false
}
