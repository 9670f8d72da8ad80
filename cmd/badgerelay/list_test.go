package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"badgerelay/cmd/internal/command"
)

// TestListThatWasCut: a list says that it is not all, in text and in JSON, on whichever
// page of the relay's it was cut; an import takes none of that kind.
func TestListThatWasCut(t *testing.T) {
	f := newFiles(t)
	_, app := apple(t, f)
	s := serve(t, f.base(t, app))
	at := func(args ...string) []string { return append(args, "--admin", s.Admin) }
	want(t, command.Done, "", at("organization", "add", "fabrikam.com")...)
	const n = 1013 // more than a page
	var devices strings.Builder
	for i := range n {
		fmt.Fprintf(&devices, "user%d@fabrikam.com,mail,%064x\n", i, i)
	}
	want(t, command.Done, fmt.Sprint(n, " created"), at("subscription", "import", "--organization", "fabrikam.com", f.write(t, "devices.csv", devices.String()))...)
	const says = "there are more; --limit 0 lists all"
	for limit, shown := range map[int]int{3: 3, 1000: 1000, 1012: 1012, n: n, n + 1: n, 0: n} {
		list := at("subscription", "list", "fabrikam.com", "--limit", fmt.Sprint(limit))
		if _, out := execute(t, list...); strings.Contains(out, says) != (shown < n) || strings.Count(out, "user") != shown {
			t.Errorf("--limit %d shows %d rows and ends with %q, want %d and a word where there are more", limit, strings.Count(out, "user"), out[max(0, len(out)-80):], shown)
		}
		_, out := execute(t, append(list, "--output", "json")...)
		out = out[strings.Index(out, "{"):] // the warning is on standard error
		var got struct {
			Subscriptions []json.RawMessage
			NextPageToken string
		}
		if err := json.Unmarshal([]byte(out), &got); err != nil || len(got.Subscriptions) != shown || (got.NextPageToken != "") != (shown < n) {
			t.Errorf("--limit %d is %d in JSON with token %q, %v; want %d", limit, len(got.Subscriptions), got.NextPageToken, err, shown)
		}
		code, said := executeWith(t, out, at("subscription", "import", "--organization", "fabrikam.com", "-")...)
		if refused := strings.Contains(said, "is a list that was cut"); refused != (shown < n) || refused != (code != command.Done) {
			t.Errorf("the import of --limit %d = %d, %s", limit, code, said)
		}
	}
}
