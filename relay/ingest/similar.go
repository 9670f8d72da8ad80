package ingest

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"badgerelay/relay"
)

// Bounds of the search for names like a mailbox's. Ours: a small organization is
// searched whole; in a large one a slip in the first letter is found in the case of
// the letter only.
const (
	similarPage  = 1000
	similarWhole = 5 // pages
	maxSimilar   = 3
	maxEdits     = 2
)

// similar returns mailboxes that have a device and whose names are like one that has
// none: the same in another case, a slip or two away, or the same at another domain.
func (p *reporter) similar(ctx context.Context, org relay.OrganizationID, name string) ([]string, error) {
	type found struct {
		name     string
		distance int
	}
	var near []found
	user, _, _ := strings.Cut(name, "@")
	most := max(1, min(maxEdits, (len(user)+1)/3)) // of a short name two edits leave nothing; distance is 1 for the domain
	look := func(names []string) {
		for _, n := range names {
			if d := distance(name, n); d <= most {
				near = append(near, found{n, d})
			}
		}
	}
	whole, err := p.eachPage(ctx, org, "", look)
	if err != nil {
		return nil, err
	}
	if !whole {
		first := name[:1] // a byte: the order is that of bytes
		for _, from := range []string{strings.ToLower(first), strings.ToUpper(first)} {
			if _, err := p.eachPage(ctx, org, from, look); err != nil {
				return nil, err
			}
		}
		if n := min(len(name), 3); n > 1 {
			if _, err := p.eachPage(ctx, org, name[:n], look); err != nil {
				return nil, err
			}
		}
	}
	slices.SortStableFunc(near, func(a, b found) int { return cmp.Or(cmp.Compare(a.distance, b.distance), cmp.Compare(a.name, b.name)) })
	near = slices.CompactFunc(near, func(a, b found) bool { return a.name == b.name })
	var names []string
	for _, f := range near[:min(len(near), maxSimilar)] {
		names = append(names, f.name)
	}
	return names, nil
}

// eachPage calls look with the names after one, a few pages of them; it reports
// whether that was all.
func (p *reporter) eachPage(ctx context.Context, org relay.OrganizationID, after string, look func([]string)) (all bool, err error) {
	for range similarWhole {
		names, err := p.server.registry.Mailboxes(ctx, org, after, similarPage)
		if err != nil {
			return false, err
		}
		look(names)
		if len(names) < similarPage {
			return true, nil
		}
		after = names[len(names)-1]
	}
	return false, nil
}

// distance says how unlike two names are: 0 for another case, 1 for another domain or
// none, or for two neighbours that have changed places, else the edits from one to the
// other, whatever their case.
func distance(a, b string) int {
	a, b = strings.ToLower(a), strings.ToLower(b)
	userA, _, _ := strings.Cut(a, "@")
	userB, _, _ := strings.Cut(b, "@")
	switch {
	case a == b:
		return 0
	case userA == userB, swapped(a, b):
		return 1
	case len(userA) < 2 || len(userB) < 2:
		return maxEdits + 1 // one edit leaves nothing of it
	}
	return edits(a, b)
}

// swapped reports whether two neighbours have changed places.
func swapped(a, b string) bool {
	if len(a) != len(b) {
		return false
	}
	i := 0
	for i < len(a) && a[i] == b[i] {
		i++
	}
	return i+1 < len(a) && a[i] == b[i+1] && a[i+1] == b[i] && a[i+2:] == b[i+2:]
}

// edits returns the Levenshtein distance, or maxEdits+1 where it is above that.
func edits(a, b string) int {
	if len(a)-len(b) > maxEdits || len(b)-len(a) > maxEdits {
		return maxEdits + 1
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
