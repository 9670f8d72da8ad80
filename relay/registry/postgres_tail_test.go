package registry

import (
	"errors"
	"testing"
	"time"

	"badgerelay/relay/registry/postgrestest"
)

// TestTailPass reads rows and looks at which ids are asked for again.
func TestTailPass(t *testing.T) {
	const last = 5
	for name, c := range map[string]struct {
		ids      []int64
		from, to int64 // the gaps; from 0: none
	}{
		"in order":                     {[]int64{6, 7, 8}, 0, 0},
		"one is missing":               {[]int64{6, 8}, 7, 7},
		"a late one fills the gap":     {[]int64{6, 8, 7}, 0, 0},
		"two large removals under way": {[]int64{last + 2*removeBatch + 1}, last + 1, last + 2*removeBatch},
		"somebody moved the sequence":  {[]int64{10 * tailJump}, 9 * tailJump, 10*tailJump - 1},
	} {
		t.Run(name, func(t *testing.T) {
			tail := newTail()
			tail.last = last
			var highest int64
			for _, id := range c.ids {
				tail.pass(id, time.Now())
				highest = max(highest, id)
			}
			want := 0
			for id := c.from; id > 0 && id <= c.to; id++ {
				want++
				if _, ok := tail.gaps[id]; !ok {
					t.Fatalf("%d is not asked for again", id)
				}
				if tail.told([]int64{last, id}) {
					t.Fatalf("%d counts as told", id)
				}
			}
			if len(tail.gaps) != want || tail.last != highest {
				t.Errorf("got %d gaps below %d, want %d below %d", len(tail.gaps), tail.last, want, highest)
			}
			if !tail.told([]int64{highest}) || tail.told([]int64{highest, highest + 1}) {
				t.Errorf("%d does not count as told, or %d does", highest, highest+1)
			}
		})
	}
}

func TestTailCloseGaps(t *testing.T) {
	tail, now := newTail(), time.Now()
	tail.pass(2, now)
	tail.pass(4, now.Add(time.Second))
	tail.closeGaps(now.Add(gapLife))
	if len(tail.gaps) != 2 {
		t.Errorf("got gaps %v, want both: a transaction may last an hour", tail.gaps)
	}
	tail.closeGaps(now.Add(gapLife + 1))
	if _, ok := tail.gaps[3]; len(tail.gaps) != 1 || !ok {
		t.Errorf("got gaps %v, want only the younger", tail.gaps)
	}
}

// TestTailEndsWhenChangesWerePurged has been without the database for nearly as
// long as changes are kept. It ends without asking it.
func TestTailEndsWhenChangesWerePurged(t *testing.T) {
	p := &postgresServer{tail: newTail(), poll: time.Second}
	p.tail.read = time.Now().Add(-changeRetention + time.Hour - time.Second)
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
	both[1].tail.closeGaps(time.Now().Add(2 * gapLife))
	var told []Change
	defer both[1].OnChange(func(changes []Change) { told = append(told, changes...) })()
	if _, err := both[0].AddOrganization(t.Context(), NewOrganization{Name: "fabrikam.com"}); err != nil {
		t.Fatal(err)
	}
	if err := both[1].catchUp(t.Context()); err != nil || len(told) != 1 {
		t.Errorf("the other relay was told %v, %v; want the first change", told, err)
	}
}
