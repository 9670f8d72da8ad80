package registry_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"badgerelay/apns"
	"badgerelay/auth/authtest"
	"badgerelay/relay/registry"
	"badgerelay/relay/registry/postgrestest"
)

// TestPostgresOfAnotherProgram has databases that others use, or have begun to.
func TestPostgresOfAnotherProgram(t *testing.T) {
	server := postgrestest.Start(t)
	const version = `CREATE TABLE goose_db_version (id serial, version_id bigint, is_applied boolean, tstamp timestamp);
		INSERT INTO goose_db_version (version_id, is_applied) VALUES (0, true)`
	for name, c := range map[string]struct {
		statements string
		foreign    bool
	}{
		"other tables":                           {`CREATE TABLE wp_posts (id bigint)`, true},
		"a table of the same name":               {`CREATE TABLE organizations (id bigint)`, true},
		"the same migrations, another program's": {version + `, (3, true); CREATE TABLE orders (id bigint)`, true},
		"the same at its beginning":              {version + `; CREATE TABLE orders (id bigint)`, true},
		"a version and nothing else":             {version, false}, // a relay was ended there
		"what an extension brings":               {`CREATE EXTENSION pg_trgm; CREATE TABLE of (id bigint); ALTER EXTENSION pg_trgm ADD TABLE of`, false},
		"tables of another schema":               {`CREATE SCHEMA other; CREATE TABLE other.orders (id bigint)`, false},
	} {
		t.Run(name, func(t *testing.T) {
			database := server.Database()
			server.Exec(database, c.statements)
			config := registry.PostgresConfig{URL: server.URL(database)}
			_, checked := config.Check(t.Context())
			p, err := registry.OpenPostgres(t.Context(), config)
			if err == nil {
				defer p.Close()
			}
			for _, err := range []error{checked, err} {
				invalid, ok := errors.AsType[*registry.InvalidError](err)
				if c.foreign && (!ok || invalid.Field != "url" || !strings.Contains(invalid.Detail, "another program")) || !c.foreign && err != nil {
					t.Errorf("got %v, want it refused: %t", err, c.foreign)
				}
			}
		})
	}
}

// TestPostgresEncoding has databases that can't hold every mailbox, which another one
// alone mends, and roles whose settings would have text come otherwise.
func TestPostgresEncoding(t *testing.T) {
	server := postgrestest.Start(t)
	for _, encoding := range []string{"SQL_ASCII", "LATIN1", "EUC_JP", "MULE_INTERNAL"} {
		config := registry.PostgresConfig{URL: server.URL(server.Database("ENCODING '" + encoding + "' TEMPLATE template0"))}
		_, checked := config.Check(t.Context())
		p, opened := registry.OpenPostgres(t.Context(), config)
		if opened == nil {
			_ = p.Close()
		}
		for _, err := range []error{checked, opened} {
			invalid, ok := errors.AsType[*registry.InvalidError](err)
			if !ok || errors.Is(err, registry.ErrUnavailable) || invalid.Field != "url" || !strings.Contains(invalid.Detail, "encoding is "+encoding) || !strings.Contains(invalid.Detail, "ENCODING 'UTF8'") {
				t.Errorf("%s: got %v, want it refused, with what to do", encoding, err)
			}
		}
	}
	for _, setting := range []string{"client_encoding = 'LATIN1'", "standard_conforming_strings = off", "backslash_quote = off"} {
		database := server.Database()
		server.Exec(database, "ALTER DATABASE "+database+" SET "+setting)
		config := registry.PostgresConfig{URL: server.URL(database)}
		if _, err := config.Check(t.Context()); err != nil {
			t.Errorf("check with %s: %v", setting, err)
		}
		p := openPostgres(t, config)
		o, err := p.AddOrganization(t.Context(), registry.NewOrganization{Name: "fabrikam.com"})
		if err != nil {
			t.Fatalf("%s: %v", setting, err)
		}
		const mailbox = `jürgen\'s日@fabrikam.com`
		if _, err := p.Subscribe(t.Context(), o.ID, registry.Registration{Mailbox: mailbox, App: "mail", Device: apns.ImpossibleDevice()}); err != nil {
			t.Errorf("%s: %v", setting, err)
		}
		found, _, err := p.ListSubscriptions(t.Context(), registry.SubscriptionFilter{Organization: o.ID}, registry.Page{})
		if err != nil || len(found) != 1 || found[0].Mailbox != mailbox {
			t.Errorf("%s: got %v, %v; want the mailbox as it was", setting, found, err)
		}
	}
}

// TestPostgresVerifiesTheServer connects as to a managed database: over TLS, with a
// file that says which authority to trust.
func TestPostgresVerifiesTheServer(t *testing.T) {
	postgrestest.Need(t)
	end := time.Now().Add(time.Hour)
	ours, others := authtest.NewServer("ours", end), authtest.NewServer("others", end)
	certificate := ours.Issue("localhost", "localhost")
	server, port := postgrestest.StartTLS(t, certificate.PEM(), certificate.KeyPEM())
	dir := t.TempDir()
	for name, authority := range map[string]*authtest.Server{"ours.pem": ours, "others.pem": others} {
		if err := os.WriteFile(filepath.Join(dir, name), authority.PEM(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	url := func(host, authority string) registry.PostgresConfig {
		return registry.PostgresConfig{URL: "postgres://postgres@" + host + ":" + port + "/" + server.Database() +
			"?sslmode=verify-full&sslrootcert=" + filepath.Join(dir, authority)}
	}
	p := openPostgres(t, url("localhost", "ours.pem"))
	if _, err := p.AddOrganization(t.Context(), registry.NewOrganization{Name: "fabrikam.com"}); err != nil {
		t.Error(err)
	}
	if got, err := url("localhost", "ours.pem").Check(t.Context()); err != nil || !strings.Contains(got, "PostgreSQL") {
		t.Errorf("check: got %q, %v", got, err)
	}
	for name, c := range map[string]struct {
		config registry.PostgresConfig
		want   string
	}{
		"another authority": {url("localhost", "others.pem"), "unknown authority"},
		"another name":      {url("127.0.0.1", "ours.pem"), "127.0.0.1"},
	} {
		for _, open := range []func() error{
			func() error { _, err := registry.OpenPostgres(t.Context(), c.config); return err },
			func() error { _, err := c.config.Check(t.Context()); return err },
		} {
			if err := open(); !errors.Is(err, registry.ErrUnavailable) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: got %v, want ErrUnavailable with %q", name, err, c.want)
			}
		}
	}
	if _, err := url("localhost", "missing.pem").Check(t.Context()); err == nil || !strings.Contains(err.Error(), "missing.pem") {
		t.Errorf("no such file: got %v, want its name", err)
	}
}
