package registry

import (
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

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

// TestTailOfANewDatabase has the first change of all come hours after a relay
// began to follow.
func TestTailOfANewDatabase(t *testing.T) {
	server := postgrestest.Start(t)
	url := server.URL(server.Database())
	var both [2]*Postgres
	for i := range both {
		p, err := OpenPostgres(t.Context(), PostgresConfig{URL: url})
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		both[i] = p
	}
	var told []Change
	defer both[1].OnChange(func(changes []Change) { told = append(told, changes...) })()
	if _, err := both[0].AddOrganization(t.Context(), NewOrganization{Name: "fabrikam.com"}); err != nil {
		t.Fatal(err)
	}
	if err := both[1].catchUp(t.Context()); err != nil || len(told) != 1 {
		t.Errorf("the other relay was told %v, %v; want the first change", told, err)
	}
}

// TestRenewalIsNoChangeForOthers renews a subscription: listeners here are told,
// and the table of changes has nothing new.
func TestRenewalIsNoChangeForOthers(t *testing.T) {
	p := openAdjusted(t, PostgresConfig{}, func(*pgxpool.Config) {})
	o, err := p.AddOrganization(t.Context(), NewOrganization{Name: "fabrikam.com"})
	if err != nil {
		t.Fatal(err)
	}
	var told []Change
	defer p.OnChange(func(changes []Change) { told = append(told, changes...) })()
	for _, mailbox := range []string{"a", "a", "b"} { // comes, is renewed, moves
		r := registration(1)
		r.Mailbox = mailbox
		if _, err := p.Subscribe(t.Context(), o.ID, r); err != nil {
			t.Fatal(err)
		}
	}
	var kept int
	if err := p.pool.QueryRow(t.Context(), `SELECT count(*) FROM changes`).Scan(&kept); err != nil {
		t.Fatal(err)
	}
	if kept != 3 || len(told) != 4 || !told[1].Renewed {
		t.Errorf("%d rows of changes, told %+v; want 3 (organization, coming, moving), and 4 with the renewal second", kept, told)
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
