package registry

import (
	"io/fs"
	"regexp"
	"strings"
	"testing"
)

// contracting is what an older relay beside may not survive.
var contracting = regexp.MustCompile(`(?i)\b(DROP|RENAME|TRUNCATE|SET\s+NOT\s+NULL|SET\s+DATA\s+TYPE|ALTER\s+COLUMN\s+\w+\s+TYPE|ADD\s+(CONSTRAINT|CHECK|UNIQUE|FOREIGN)|CREATE\s+UNIQUE|CREATE\s+TRIGGER|CREATE\s+RULE)\b`)

// withoutDefault is a column that the rows of an older relay can't fill.
var withoutDefault = regexp.MustCompile(`(?i)ADD\s+COLUMN[^;,]*NOT\s+NULL[^;,]*`)

// problem says what is wrong with a migration of PostgreSQL's; empty: nothing.
func problem(text string) string {
	var statements strings.Builder
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "--")
		statements.WriteString(line + "\n")
	}
	sql := statements.String()
	if regexp.MustCompile(`(?i)UPDATE\s+schema_compatibility\s+SET\s+oldest`).MatchString(sql) {
		return ""
	}
	if found := contracting.FindString(sql); found != "" {
		return found
	}
	for _, column := range withoutDefault.FindAllString(sql, -1) {
		if !strings.Contains(strings.ToUpper(column), "DEFAULT") {
			return column
		}
	}
	return ""
}

// TestPostgresMigrationsExpand holds every migration after the first to what
// migrations/README.md says.
func TestPostgresMigrationsExpand(t *testing.T) {
	names, err := fs.Glob(postgresMigrations, "migrations/postgres/*.sql")
	if err != nil || len(names) == 0 {
		t.Fatalf("found %v, %v", names, err)
	}
	for _, name := range names[1:] {
		text, err := fs.ReadFile(postgresMigrations, name)
		if err != nil {
			t.Fatal(err)
		}
		if p := problem(string(text)); p != "" {
			t.Errorf("%s: %q is not for relays of the version before; see migrations/README.md", name, p)
		}
	}
	for text, bad := range map[string]bool{
		"ALTER TABLE organizations ADD COLUMN later text NOT NULL DEFAULT '';":        false,
		"ALTER TABLE organizations ADD COLUMN later text; -- DROP it later":           false,
		"CREATE TABLE later (id bigint NOT NULL); CREATE INDEX i ON later (id);":      false,
		"ALTER TABLE organizations ADD COLUMN later text NOT NULL;":                   true,
		"ALTER TABLE organizations drop column apps;":                                 true,
		"ALTER TABLE organizations ALTER COLUMN apps TYPE jsonb;":                     true,
		"CREATE UNIQUE INDEX i ON subscriptions (token);":                             true,
		"DROP TABLE removed_credentials; UPDATE schema_compatibility SET oldest = 2;": false,
	} {
		if p := problem(text); (p != "") != bad {
			t.Errorf("%s: found %q, want a problem: %t", text, p, bad)
		}
	}
}
