package registry

import (
	"errors"
	"testing"
	"time"

	"badgerelay/apns"
	"badgerelay/relay"
	"badgerelay/relay/registry/postgrestest"
)

// TestTailEndsWhenChangesWerePurged has been without the database for nearly as
// long as changes are kept. It ends without asking it.
func TestTailEndsWhenChangesWerePurged(t *testing.T) {
	p := &postgresServer{changelog: newChangelogReader(), poll: time.Second}
	p.changelog.at.read = time.Now().Add(-changeRetention + time.Hour - time.Second)
	if err := p.followUntil(t.Context(), nil); !errors.Is(err, ErrChangesMissed) {
		t.Errorf("got %v, want ErrChangesMissed", err)
	}
}

// openBoth opens a database as two relays do.
func openBoth(t *testing.T) (both [2]*Postgres) {
	t.Helper()
	server := postgrestest.Start(t)
	url := server.URL(server.Database())
	for i := range both {
		p, err := OpenPostgres(t.Context(), PostgresConfig{URL: url})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = p.Close() }) // the server ends, too
		both[i] = p
	}
	return both
}

// TestTailOfANewDatabase has the first change of all come hours after a relay
// began to follow.
func TestTailOfANewDatabase(t *testing.T) {
	both := openBoth(t)
	var told []Change
	defer both[1].OnChange(func(changes []Change) { told = append(told, changes...) })()
	if _, err := both[0].AddOrganization(t.Context(), NewOrganization{Name: "fabrikam.com"}); err != nil {
		t.Fatal(err)
	}
	if err := both[1].catchUp(t.Context()); err != nil || len(told) != 1 {
		t.Errorf("the other relay was told %v, %v; want the first change", told, err)
	}
}

// TestOthersLearnOfRegistrations has an app register anew by one relay, and a refusal
// forgotten there: a relay beside it learns that the mailbox is to be read again, since
// the app may have cleared its badge, and a quarantine is over.
func TestOthersLearnOfRegistrations(t *testing.T) {
	both := openBoth(t)
	o, err := both[0].AddOrganization(t.Context(), NewOrganization{Name: "fabrikam.com"})
	if err != nil {
		t.Fatal(err)
	}
	r := registration(1)
	subscribe := func() {
		t.Helper()
		if _, err := both[0].Subscribe(t.Context(), o.ID, r); err != nil {
			t.Fatal(err)
		}
	}
	subscribe()
	key := relay.MailboxKey{Organization: o.ID, Mailbox: r.Mailbox}
	refused := []relay.Refusal{{Key: key, App: r.App, Device: r.Device, Reason: apns.ReasonBadDeviceToken, SentAt: time.Now(), Registered: time.Now(), Generation: 1}}
	if judged, err := both[0].Refuse(t.Context(), refused); err != nil || judged[0].Verdict != relay.RefusalHolds {
		t.Fatal(judged, err)
	}
	if err := both[1].catchUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	var told []Change
	defer both[1].OnChange(func(changes []Change) { told = append(told, changes...) })()
	forget := func() {
		t.Helper()
		if err := both[0].ForgetRefusals(t.Context(), []relay.Subscriber{{Key: key, App: r.App, Device: r.Device}}); err != nil {
			t.Fatal(err)
		}
	}
	for i, change := range []func(){forget, subscribe} {
		told = nil
		change()
		if err := both[1].catchUp(t.Context()); err != nil || len(told) != 1 || told[0].Kind != ChangeSubscribed || told[0].Mailbox != r.Mailbox {
			t.Errorf("change %d: the other relay was told %v, %v; want that the mailbox is to be read anew", i, told, err)
		}
	}
}

// TestOwnChangesAreNotReadBack reads a change of its own whose row nobody could decode,
// and the same as another's: by its id alone it is not known.
func TestOwnChangesAreNotReadBack(t *testing.T) {
	server := postgrestest.Start(t)
	p, err := OpenPostgres(t.Context(), PostgresConfig{URL: server.URL(server.Database())})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	at := p.changelog.at
	own := keptChange{changes: []Change{{Kind: ChangeSubscribed, Organization: 1, Mailbox: "ann"}}}
	row := p.pool.QueryRow(t.Context(), `INSERT INTO changes (made_at, data) VALUES (1, 'no JSON') RETURNING id, xid`)
	if err := row.Scan(&own.id, &own.xid); err != nil {
		t.Fatal(err)
	}
	read, err := p.readChanges(t.Context(), at, []keptChange{own})
	if err != nil || len(read.rows) != 1 || len(read.rows[0].changes) != 1 || read.rows[0].changes[0] != own.changes[0] {
		t.Errorf("read %+v, %v; want the change that was handed in", read.rows, err)
	}
	another := own
	another.xid++
	for name, known := range map[string][]keptChange{"nobody's": nil, "of another transaction": {another}} {
		if read, err := p.readChanges(t.Context(), at, known); err == nil {
			t.Errorf("%s: read %+v of a row that holds no changes", name, read.rows)
		}
	}
}
