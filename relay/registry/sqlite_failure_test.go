package registry

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"badgerelay/apns"
	"badgerelay/relay"

	"github.com/prometheus/client_golang/prometheus"
	"modernc.org/sqlite"
)

// open opens a database and closes it at the end of the test.
func open(t *testing.T, c SQLiteConfig) *SQLite {
	t.Helper()
	s, err := OpenSQLite(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() }) // some tests close it themselves
	return s
}

func newPath(t *testing.T) string { return filepath.Join(t.TempDir(), "registry.db") }

func addOrg(t *testing.T, s *SQLite) relay.OrganizationID {
	t.Helper()
	o, err := s.AddOrganization(t.Context(), NewOrganization{Name: "fabrikam.com"})
	if err != nil {
		t.Fatal(err)
	}
	return o.ID
}

func registration(n int) Registration {
	d, err := apns.DeviceTokenFromBytes(fmt.Appendf(nil, "%032d", n))
	if err != nil {
		panic(err) // 32 bytes are a token
	}
	return Registration{Mailbox: fmt.Sprint("user", n), App: "com.example.mail", Device: d}
}

// pragma runs a statement on the connection that writes.
func pragma(t *testing.T, s *SQLite, statement string) {
	t.Helper()
	if err := s.writer.take(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer s.writer.give()
	if _, err := s.writer.conn.ExecContext(t.Context(), statement); err != nil {
		t.Fatal(err)
	}
}

func wantSubscriptions(t *testing.T, s *SQLite, want uint64) {
	t.Helper()
	c, err := s.Counts(t.Context())
	if err != nil || c.Subscriptions != want {
		t.Errorf("got %d subscriptions, %v; want %d", c.Subscriptions, err, want)
	}
	var n uint64
	var ok string
	err = s.readers.QueryRowContext(t.Context(), `SELECT count(*), (SELECT * FROM pragma_integrity_check) FROM subscriptions`).Scan(&n, &ok)
	if err != nil || n != want || ok != "ok" {
		t.Errorf("got %d rows, integrity %q, %v; want %d", n, ok, err, want)
	}
	wantDevices(t, s, n)
}

// wantDevices checks that the index of devices says where the n subscriptions
// are.
func wantDevices(t *testing.T, s *SQLite, n uint64) {
	t.Helper()
	var found uint64
	err := s.query(t.Context(), `SELECT s.app, s.token, d.device FROM subscriptions s
		JOIN (SELECT * FROM devices UNION SELECT * FROM devices_log) d ON d.organization_id = s.organization_id AND d.mailbox = s.mailbox`, nil,
		func(row scanner) error {
			var app, token raw
			var hash int64
			if err := row.Scan(&app, &token, &hash); err != nil {
				return err
			}
			d, err := apns.DeviceTokenFromBytes(token)
			if deviceHash(device{string(app), d}) == hash {
				found++
			}
			return err
		})
	if err != nil || found != n {
		t.Errorf("found %d devices at their mailbox, %v; want %d", found, err, n)
	}
}

func TestOpenCreatesPrivateFiles(t *testing.T) {
	path := newPath(t) + " a?b#c%41&d" // nothing of a name is special
	s := open(t, SQLiteConfig{Path: path})
	addOrg(t, s)
	for _, suffix := range []string{"", "-wal", "-shm", ".lock"} {
		info, err := os.Stat(path + suffix)
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("file %q: got %v, %v; want mode 0600", suffix, info, err)
		}
	}
	for pragma, want := range map[string]string{"journal_mode": "wal", "synchronous": "2", "foreign_keys": "1", "busy_timeout": "5000"} {
		var got string
		if err := s.writer.conn.QueryRowContext(t.Context(), "PRAGMA "+pragma).Scan(&got); err != nil || got != want {
			t.Errorf("%s is %q, %v; want %q", pragma, got, err, want)
		}
	}
}

// TestNewFileIsNeverEmpty has nothing but a new file, as a process leaves it that is killed
// there: the next one begins with it, and an empty file is one that was lost.
func TestNewFileIsNeverEmpty(t *testing.T) {
	path := newPath(t)
	if err := createFile(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	if all, err := filepath.Glob(path + "*"); err != nil || len(all) != 1 {
		t.Errorf("made are %v, %v; want the file alone", all, err)
	}
	addOrg(t, open(t, SQLiteConfig{Path: path}))

	empty := newPath(t)
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var invalid *InvalidError
	if _, err := OpenSQLite(t.Context(), SQLiteConfig{Path: empty}); !errors.As(err, &invalid) || !strings.Contains(err.Error(), "empty file") {
		t.Errorf("an empty file: got %v", err)
	}
	if info, err := os.Stat(empty); err != nil || info.Size() != 0 {
		t.Errorf("the empty file is %v, %v", info, err)
	}
}

func TestOpenFails(t *testing.T) {
	var invalid *InvalidError
	if _, err := OpenSQLite(t.Context(), SQLiteConfig{}); !errors.As(err, &invalid) {
		t.Errorf("no path: got %v", err)
	}
	if _, err := OpenSQLite(t.Context(), SQLiteConfig{Path: filepath.Join(t.TempDir(), "none", "x")}); !errors.Is(err, ErrUnavailable) {
		t.Errorf("no directory: got %v", err)
	}
	path := newPath(t)
	if err := os.WriteFile(path, []byte(strings.Repeat("this is not a database ", 100)), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o644); err != nil { // whatever the umask is
		t.Fatal(err)
	}
	if _, err := OpenSQLite(t.Context(), SQLiteConfig{Path: path}); !errors.As(err, &invalid) {
		t.Errorf("not a database: got %v, want an error of the path", err)
	}
	if _, err := LockForRelay(t.Context(), path); !errors.As(err, &invalid) {
		t.Errorf("not a database is locked: got %v", err)
	}
	files, err := os.ReadDir(filepath.Dir(path))
	if info, statErr := os.Stat(path); err != nil || statErr != nil || len(files) != 1 || info.Mode().Perm() != 0o644 {
		t.Errorf("what is not ours has mode %v, and beside it are %v", info.Mode(), files)
	}
}

func TestReopen(t *testing.T) {
	path := newPath(t)
	s := open(t, SQLiteConfig{Path: path})
	org := addOrg(t, s)
	if _, err := s.Subscribe(t.Context(), org, registration(1)); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, SQLiteConfig{Path: path, SubscriptionLifetime: time.Hour})
	wantSubscriptions(t, s, 1)
	got, _, err := s.ListSubscriptions(t.Context(), SubscriptionFilter{Organization: org}, Page{})
	if err != nil || len(got) != 1 || !got[0].ExpiresAt.Equal(got[0].RegisteredAt.Add(time.Hour)) {
		t.Errorf("got %+v, %v; want one that expires an hour after its registration", got, err)
	}
}

// TestOpenAtOnce opens a new file from many sides; one migrates it.
func TestOpenAtOnce(t *testing.T) {
	path := newPath(t)
	var wg sync.WaitGroup
	for range 6 {
		wg.Go(func() {
			s, err := OpenSQLite(t.Context(), SQLiteConfig{Path: path})
			if err != nil {
				t.Errorf("open: %v", err)
				return
			}
			if err := s.Close(); err != nil {
				t.Errorf("close: %v", err)
			}
		})
	}
	wg.Wait()
}

func TestNewerSchema(t *testing.T) {
	path := newPath(t)
	s := open(t, SQLiteConfig{Path: path})
	first, err := sqliteMigrations.ReadFile("migrations/sqlite/00001_initial.sql")
	if err != nil {
		t.Fatal(err)
	}
	newer := fstest.MapFS{
		"00001_initial.sql": {Data: first},
		"00007_later.sql":   {Data: []byte("-- +goose Up\nALTER TABLE organizations ADD COLUMN later TEXT;\n")},
	}
	s.writer.drop() // the one connection is needed for the migration
	if err := migrateTo(t.Context(), s.writer.db, newer); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	_, err = OpenSQLite(t.Context(), SQLiteConfig{Path: path})
	if !errors.Is(err, ErrNewerSchema) || !strings.Contains(err.Error(), "version 7") || !strings.Contains(err.Error(), "version 1") {
		t.Errorf("got %v, want ErrNewerSchema with versions 7 and 1", err)
	}
}

func TestMigrationsAreForwardOnly(t *testing.T) {
	err := fs.WalkDir(sqliteMigrations, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := sqliteMigrations.ReadFile(path)
		if strings.Contains(string(data), "goose Down") {
			t.Errorf("%s can go back", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestFull fills the file up to its largest size; what was acknowledged is
// there, what was not is not, and it goes on when there is room again.
func TestFull(t *testing.T) {
	registerer := prometheus.NewRegistry()
	var log strings.Builder
	s := open(t, SQLiteConfig{Path: newPath(t), Registerer: registerer, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	org := addOrg(t, s)
	pragma(t, s, "PRAGMA max_page_count = 36")
	told := 0
	s.OnChange(func([]Change) { told++ })
	n := 0
	var err error
	for ; err == nil && n < 100000; n++ {
		_, err = s.Subscribe(t.Context(), org, registration(n))
	}
	if !strings.Contains(log.String(), "operation=subscribe") || !strings.Contains(log.String(), "database or disk is full") {
		t.Errorf("the log has %q, want the call and SQLite's own words", log.String())
	}
	acknowledged := uint64(n - 1)
	if !errors.Is(err, ErrUnavailable) || told != n-1 {
		t.Fatalf("after %d: got %v, told %d times; want ErrUnavailable", n, err, told)
	}
	wantSubscriptions(t, s, acknowledged)
	rs := make([]Registration, 3000)
	for i := range rs {
		rs[i] = registration(200000 + i)
	}
	if got, err := s.ImportSubscriptions(t.Context(), org, rs); !errors.Is(err, ErrUnavailable) || got.Created != 0 {
		t.Errorf("import: got %+v, %v; want ErrUnavailable", got, err)
	}
	wantSubscriptions(t, s, acknowledged)
	if got, err := s.Lookup(t.Context(), []relay.MailboxKey{{Organization: org, Mailbox: "user0"}}); err != nil || len(got[0]) != 1 {
		t.Errorf("lookup while full: got %v, %v", got, err)
	}
	pragma(t, s, "PRAGMA max_page_count = 100000")
	if _, err := s.Subscribe(t.Context(), org, registration(n)); err != nil {
		t.Errorf("with room again: %v", err)
	}
	wantSubscriptions(t, s, acknowledged+1)
	wantCounted(t, registerer, "subscribe", 1)
}

func wantCounted(t *testing.T, g prometheus.Gatherer, op string, want float64) {
	t.Helper()
	families, err := g.Gather()
	if err != nil {
		t.Fatal(err)
	}
	labels := 0
	for _, f := range families {
		for _, m := range f.Metric {
			if len(m.Label) == 0 {
				continue // of no operation
			}
			labels++
			if f.GetName() == "registry_unavailable_total" && m.Label[0].GetValue() == op && m.Counter.GetValue() != want {
				t.Errorf("%s counted %v times unavailable, want %v", op, m.Counter.GetValue(), want)
			}
		}
	}
	if labels != 2*int(operations) {
		t.Errorf("got %d label values, want all %d from the beginning", labels, 2*operations)
	}
}

// TestReadOnly has the relay's connection be one that was opened when the file
// could only be read: it is replaced as soon as that shows.
func TestReadOnly(t *testing.T) {
	path := newPath(t)
	registerer := prometheus.NewRegistry()
	s := open(t, SQLiteConfig{Path: path, Registerer: registerer})
	org := addOrg(t, s)
	if _, err := s.Subscribe(t.Context(), org, registration(0)); err != nil {
		t.Fatal(err)
	}
	if err := s.writer.close(); err != nil {
		t.Fatal(err)
	}
	modes := &openModes{path: path, modes: []string{"ro", "ro", "rw"}}
	s.writer = newWriter(sql.OpenDB(modes))
	s.writer.db.SetMaxOpenConns(1)
	for range 2 {
		if _, err := s.Subscribe(t.Context(), org, registration(1)); !errors.Is(err, ErrUnavailable) {
			t.Errorf("read-only: got %v, want ErrUnavailable", err)
		}
	}
	wantCounted(t, registerer, "subscribe", 2)
	if got, err := s.Lookup(t.Context(), []relay.MailboxKey{{Organization: org, Mailbox: "user0"}}); err != nil || len(got[0]) != 1 {
		t.Errorf("lookup while read-only: got %v, %v", got, err)
	}
	if _, err := s.Subscribe(t.Context(), org, registration(1)); err != nil {
		t.Errorf("writable again: got %v", err)
	}
	wantSubscriptions(t, s, 2)
}

// openModes opens a file with one mode after the other.
type openModes struct {
	driver sqlite.Driver
	path   string
	modes  []string
}

func (m *openModes) Connect(context.Context) (driver.Conn, error) {
	mode := m.modes[0]
	if len(m.modes) > 1 {
		m.modes = m.modes[1:]
	}
	return m.driver.Open("file:" + m.path + "?mode=" + mode)
}

func (m *openModes) Driver() driver.Driver { return &m.driver }

// TestLocked has somebody else hold the file.
func TestLocked(t *testing.T) {
	path := newPath(t)
	s := open(t, SQLiteConfig{Path: path, BusyTimeout: 20 * time.Millisecond})
	org := addOrg(t, s)
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	conn, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.ExecContext(t.Context(), "BEGIN IMMEDIATE"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Subscribe(t.Context(), org, registration(1)); !errors.Is(err, ErrUnavailable) {
		t.Errorf("got %v, want ErrUnavailable", err)
	}
	if _, err := s.Counts(t.Context()); err != nil {
		t.Errorf("reading goes on: %v", err)
	}
	if _, err := conn.ExecContext(t.Context(), "ROLLBACK"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Subscribe(t.Context(), org, registration(1)); err != nil {
		t.Errorf("unlocked again: %v", err)
	}
	wantSubscriptions(t, s, 1)
}

// TestWriterRecovers loses the connection that writes.
func TestWriterRecovers(t *testing.T) {
	s := open(t, SQLiteConfig{Path: newPath(t)})
	org := addOrg(t, s)
	if err := s.writer.conn.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Subscribe(t.Context(), org, registration(1)); !errors.Is(err, ErrUnavailable) {
		t.Errorf("got %v, want ErrUnavailable", err)
	}
	if _, err := s.Subscribe(t.Context(), org, registration(1)); err != nil {
		t.Errorf("with a new connection: %v", err)
	}
	wantSubscriptions(t, s, 1)
}

// TestWaitingEnds has a call wait for the writer's turn until its context ends.
func TestWaitingEnds(t *testing.T) {
	s := open(t, SQLiteConfig{Path: newPath(t)})
	org := addOrg(t, s)
	if err := s.writer.take(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { // ends with ctx; the test waits for it
		_, err := s.Subscribe(ctx, org, registration(1))
		ended <- err
	}()
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
	s.writer.give()
	wantSubscriptions(t, s, 0)
}

// TestImportBatches imports in several transactions, the last one of them
// shorter, and one that fails in the midst.
func TestImportBatches(t *testing.T) {
	s := open(t, SQLiteConfig{Path: newPath(t)})
	s.batch = 7
	org := addOrg(t, s)
	rs := make([]Registration, 7*5+3)
	for n := range rs {
		rs[n] = registration(n)
	}
	rs[7].Mailbox, rs[37].App = "", ""
	got, err := s.ImportSubscriptions(t.Context(), org, rs)
	if err != nil || got.Created != 36 || len(got.Rejections) != 2 || got.Rejections[0].Index != 7 || got.Rejections[1].Index != 37 {
		t.Errorf("got %+v, %v; want 36 created, 7 and 37 refused", got, err)
	}
	wantSubscriptions(t, s, 36)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stop, batches := cancel, 0
	s.OnChange(func([]Change) {
		if batches++; batches == 2 {
			stop()
		}
	})
	got, err = s.ImportSubscriptions(ctx, org, rs[:14])
	if err != nil || got.Renewed != 13 {
		t.Errorf("ended after the last transaction: got %+v, %v; want all of it", got, err)
	}
	ctx, cancel = context.WithCancel(t.Context())
	defer cancel()
	stop, batches = cancel, 0
	got, err = s.ImportSubscriptions(ctx, org, rs)
	if !errors.Is(err, context.Canceled) || got.Renewed != 13 {
		t.Errorf("ended in the midst: got %+v, %v; want the first two transactions", got, err)
	}
}
