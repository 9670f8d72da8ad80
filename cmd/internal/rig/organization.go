package rig

import (
	"context"
	"fmt"
	"strings"
	"time"

	"badgerelay/auth/certs"
	"badgerelay/cmd/internal/rig/names"
)

// Organization is one of those that the relay serves. Each calls its own
// mailboxes by the same names (names.Mailbox, from 0).
type Organization struct {
	Number    int // from 0
	Name      string
	First     int    // number of its first mailbox among those of all
	Mailboxes int    // how many it has
	Store     string // the directory of its certificates

	store       *certs.Store
	certificate string // the file with the first certificate
}

// makeOrganizations makes each organization's certificate in a store, as
// badgeagent does.
func (r *Rig) makeOrganizations() error {
	sizes := r.Sizes
	if sizes == nil {
		sizes = []int{r.Mailboxes}
	}
	first := 0
	for i, size := range sizes {
		o := &Organization{
			Number: i, Name: names.OrganizationName(i), First: first, Mailboxes: size,
			Store: r.path(fmt.Sprint("store-", i)), certificate: r.path(fmt.Sprint("OAuthCert-", i, ".cer")),
		}
		var err error
		if o.store, err = certs.OpenStore(o.Store); err != nil {
			return err
		}
		pair, _, err := o.store.Ensure(o.Name)
		if err != nil {
			return err
		}
		if err := certs.ExportDER(o.certificate, pair.Certificate); err != nil {
			return err
		}
		r.Organizations = append(r.Organizations, o)
		first += size
	}
	return nil
}

// RollKey has the organization's next certificate registered, sign, and the
// one before removed. It tries again while the relay can't be reached.
func (r *Rig) RollKey(ctx context.Context, o *Organization) error {
	was, err := o.store.Current()
	if err != nil {
		return err
	}
	if err := r.nextKey(ctx, o); err != nil {
		return err
	}
	Wait(ctx, time.Second)
	if err := r.removeKey(ctx, o, was); err != nil {
		return err
	}
	return o.store.ClearPrevious(true)
}

// LoseKey has the organization's only credential removed, as when its key was
// stolen, and another registered after d. Between, then is called.
func (r *Rig) LoseKey(ctx context.Context, o *Organization, d time.Duration, then func() error) error {
	was, err := o.store.Current()
	if err != nil {
		return err
	}
	if err := r.removeKey(ctx, o, was); err != nil {
		return err
	}
	failed := then()
	Wait(ctx, d)
	if err := r.nextKey(ctx, o); err != nil {
		return err
	}
	if err := o.store.ClearPrevious(true); err != nil {
		return err
	}
	return failed
}

// Disable has the organization disabled, and enabled again after d. Between,
// then is called.
func (r *Rig) Disable(ctx context.Context, o *Organization, d time.Duration, then func() error) error {
	if err := r.retry(ctx, "", "organization", "disable", o.Name); err != nil {
		return err
	}
	failed := then()
	Wait(ctx, d)
	if err := r.retry(ctx, "", "organization", "enable", o.Name); err != nil {
		return err
	}
	return failed
}

// nextKey has the organization's next certificate registered and sign.
func (r *Rig) nextKey(ctx context.Context, o *Organization) error {
	next, err := o.store.Stage(o.Name, time.Now(), true)
	if err != nil {
		return err
	}
	file := r.path(fmt.Sprint("next-", o.Number, ".cer"))
	if err := certs.ExportDER(file, next.Certificate); err != nil {
		return err
	}
	if err := r.retry(ctx, "CREDENTIAL_EXISTS", "credential", "add", "--organization", o.Name, "--certificate", file); err != nil {
		return err
	}
	_, err = o.store.Publish(true)
	return err
}

func (r *Rig) removeKey(ctx context.Context, o *Organization, was *certs.Pair) error {
	return r.retry(ctx, "CREDENTIAL_NOT_FOUND", "credential", "remove", "--organization", o.Name, certs.Thumbprint(was.Certificate))
}

// retryFor is how long an operator tries: longer than any trouble lasts.
const retryFor = 2 * time.Minute

// attemptFor is how long one attempt may take: the relay may be frozen.
const attemptFor = 10 * time.Second

// retry runs an operator's command, at one relay after the other, until it
// succeeds. done, if there is one, is the reason of the refusal of what was done
// already, by a relay that was killed before it said so.
func (r *Rig) retry(ctx context.Context, done string, args ...string) error {
	began := time.Now()
	for attempt := 0; ; attempt++ {
		limited, cancel := context.WithTimeout(ctx, attemptFor)
		err := r.operateAt(limited, attempt%len(r.places), args...)
		cancel()
		if err == nil || done != "" && strings.Contains(err.Error(), done) {
			return nil
		}
		if ctx.Err() != nil || time.Since(began) > retryFor {
			return err
		}
		Wait(ctx, 100*time.Millisecond)
	}
}
