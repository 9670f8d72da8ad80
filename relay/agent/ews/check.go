package ews

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"badgerelay/relay/agent/source"
)

// Report is what Check found out, until something failed.
type Report struct {
	Address    string   // of Exchange Web Services
	Offered    []string // schemes of authentication; empty: the server asks for none
	Scheme     string   // that was accepted; empty: none was yet
	Counted    bool     // the mailbox could be opened, and has Unread
	Unread     uint32
	Subscribed bool // to its folders
	Heard      bool // a stream said that it is open
}

// Check tries everything that a source with this configuration needs for one
// mailbox, a step after the other, and ends what it began. The error is that of
// the first step that failed: a *UnauthorizedError, an *Error, or wrapping
// source.ErrMailbox where folders are missing; anything else is the
// connection's.
func Check(ctx context.Context, config Config, mailbox string) (r Report, err error) {
	if !isAddress(mailbox) {
		return r, fmt.Errorf("%w: %q is not an SMTP address", source.ErrMailbox, mailbox)
	}
	s, err := New(config)
	if err != nil {
		return r, err
	}
	l := newConnection(&s.config)
	defer l.close()
	p, err := s.locateOne(ctx, l, mailbox)
	if err != nil {
		return r, err
	}
	r.Address = p.url
	if r.Offered, err = s.offered(ctx, p.url); err != nil {
		return r, err
	}
	j := job{mailbox: mailbox, url: p.url, anchor: mailbox, cookies: new(cookies)}
	counts, folders, err := s.ask(ctx, l, j)
	if _, refused := errors.AsType[*UnauthorizedError](err); !refused && l.conn != nil {
		r.Scheme = config.Credentials.Scheme()
	}
	if err != nil {
		return r, err
	}
	b := box{unread: counts}
	r.Counted, r.Unread = true, b.total()
	messages, err := s.call(ctx, l, opSubscribe, j, subscribeBody(folders, s.owner(mailbox)))
	if err != nil {
		return r, err
	}
	if len(messages) != 1 || messages[0].Subscription == "" {
		return r, &Error{Status: http.StatusOK, Text: "the answer names no subscription"}
	}
	r.Subscribed = true
	subscription := messages[0].Subscription
	defer func() {
		_, _ = s.call(ctx, l, opUnsubscribe, j, unsubscribeBody(subscription)) // otherwise it ends by itself
	}()
	if err := s.listen(ctx, j, subscription); err != nil {
		return r, err
	}
	r.Heard = true
	return r, nil
}

// offered asks without credentials, for the schemes that the server offers.
func (s *Source) offered(ctx context.Context, url string) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, s.config.timeout())
	defer cancel()
	l := newConnection(&s.config)
	defer l.close()
	answer, _, err := l.send(ctx, url, make(http.Header), "", nil)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusUnauthorized {
		return nil, nil
	}
	schemes, _ := challenges(answer.Header, "")
	return schemes, nil
}

// listen opens a stream and waits until the server says so.
func (s *Source) listen(ctx context.Context, j job, subscription string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, s.config.timeout(), fmt.Errorf("the stream said nothing within %v", s.config.timeout()))
	defer cancel()
	l := newConnection(&s.config)
	defer l.close()
	impersonated := ""
	if s.config.access() == Impersonation {
		impersonated = j.mailbox
	}
	err := func() error {
		answer, err := l.post(ctx, j.url, s.header(j.anchor, j.cookies), soap(impersonated, streamBody([]string{subscription}, 1)))
		if err != nil {
			return err
		}
		defer answer.Body.Close()
		if answer.StatusCode != http.StatusOK {
			_, err := read(answer)
			return err
		}
		text, err := newFrames(answer.Body, maxEnvelope).next()
		if err != nil {
			return err
		}
		messages, err := parse(text)
		if err != nil {
			return err
		}
		for _, m := range messages {
			if failure := m.failure(); failure != nil {
				return failure
			}
			if strings.EqualFold(m.Status, "OK") {
				return nil
			}
		}
		return &Error{Status: http.StatusOK, Text: "the stream does not say that it is open"}
	}()
	if cause := context.Cause(ctx); err != nil && cause != nil && !errors.Is(cause, context.Canceled) {
		return cause
	}
	return err
}

// Advice says what an administrator is to do about an error of Check, and what it
// means.
func Advice(config Config, r Report, err error) string {
	if refused, ok := errors.AsType[*UnauthorizedError](err); ok {
		return adviceForLogin(refused)
	}
	said, isSaid := errors.AsType[*Error](err)
	switch {
	case isCode(err, absentCodes...):
		return "Exchange has no mailbox with that SMTP address"
	case isCode(err, "ErrorImpersonateUserDenied", "ErrorImpersonationDenied", "ErrorImpersonationFailed"):
		return "the account may not act for the mailbox: give it the role ApplicationImpersonation (New-ManagementRoleAssignment), with a scope that holds the mailbox"
	case isCode(err, "ErrorAccessDenied", "ErrorFolderNotFound", "ErrorItemNotFound") && config.access() == Delegate:
		return "the account may not read the folder: Add-MailboxFolderPermission gives it the right Reviewer on the Inbox, or set ews.access to impersonation"
	case isBusy(err):
		return fmt.Sprintf("Exchange is busy or limits the account (Get-ThrottlingPolicyAssociation); it asks to be left alone for %v", said.BackOff.Round(time.Second))
	case errors.Is(err, source.ErrMailbox):
		return fmt.Sprintf("Exchange does not show it (%v); check its name and ews.folders", err)
	case isSaid && said.Code == "" && said.Status != http.StatusOK:
		return "the address is not that of Exchange Web Services, or they are switched off there; check ews.url (Get-WebServicesVirtualDirectory shows it)"
	case isSaid && said.Code == "":
		return "what answers is not Exchange, or something stands before it, such as a page to log in; check ews.url"
	case r.Subscribed:
		return "a subscription could be made, and is not heard: what stands before Exchange must pass the stream on as it comes, and not end it when it is quiet for 45 seconds"
	case r.Counted:
		return "the mailbox can be counted and not subscribed to"
	case isSaid:
		return "Exchange refuses the request"
	case r.Address == "" && config.Autodiscover != "":
		return "autodiscover can't be asked; check ews.autodiscover, or set ews.url"
	}
	return "Exchange can't be reached; check ews.url and ews.ca_file"
}

func adviceForLogin(e *UnauthorizedError) string {
	offered := strings.Join(e.Offered, ", ")
	switch {
	case e.Err != nil && e.Scheme == Negotiate:
		return "no Kerberos ticket for Exchange; check ews.user, ews.keytab_file, ews.kerberos_config and ews.service_principal (setspn -L shows who has HTTP/ and the host name)"
	case e.Err != nil:
		return "the authentication does not come to its end"
	case len(e.Offered) > 0 && !strings.Contains(", "+offered+", ", ", "+e.Scheme+", "):
		return fmt.Sprintf("the server offers %s; set ews.authentication to one of them", offered)
	case e.Scheme == Basic:
		return "user and password are wrong, or the account is locked or may not log in"
	}
	return fmt.Sprintf("the server refuses the login. Check user, password and whether the account is locked. If they are right, the site requires Extended Protection "+
		"(Get-WebServicesVirtualDirectory shows ExtendedProtectionTokenChecking: Require), which badgeagent can't do with %s: set it to Allow, Exchange's own default, or use basic", e.Scheme)
}
