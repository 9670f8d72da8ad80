package registry

import (
	"io/fs"
	"path"
	"testing"
	"testing/fstest"

	"badgerelay/relay/registry/postgrestest"
)

// TestPostgresOlderProgramBeside has a program that knows each earlier version
// of the schema come to a database that a newer one has brought up to date.
func TestPostgresOlderProgramBeside(t *testing.T) {
	const dir = "migrations/postgres"
	server := postgrestest.Start(t)
	p, err := OpenPostgres(t.Context(), PostgresConfig{URL: server.URL(server.Database())})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	files, err := fs.ReadDir(postgresMigrations, dir)
	if err != nil {
		t.Fatal(err)
	}
	older := fstest.MapFS{}
	for _, f := range files[:len(files)-1] {
		data, err := postgresMigrations.ReadFile(path.Join(dir, f.Name()))
		if err != nil {
			t.Fatal(err)
		}
		older[f.Name()] = &fstest.MapFile{Data: data}
		if err := migratePostgresTo(t.Context(), p.pool, older); err != nil {
			t.Errorf("with %s as the last: %v", f.Name(), err)
		}
	}
}
