package admin

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	_ "github.com/jackc/pgx/v5/stdlib"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	_ "modernc.org/sqlite"

	"badgerelay/apns"
	"badgerelay/auth/certs"
	pb "badgerelay/proto/badgerelay/v1"
	"badgerelay/relay"
	"badgerelay/relay/registry"
	"badgerelay/relay/registry/postgrestest"
)

func TestValidateOnlySQLite(t *testing.T) {
	path, metrics := filepath.Join(t.TempDir(), "registry.db"), prometheus.NewRegistry()
	db, err := registry.OpenSQLite(t.Context(), registry.SQLiteConfig{Path: path, Registerer: metrics})
	if err != nil {
		t.Fatal(err)
	}
	testValidateOnly(t, db, metrics, openSQL(t, "sqlite", path), `SELECT name FROM sqlite_schema WHERE type = 'table'`)
}

func TestValidateOnlyPostgres(t *testing.T) {
	server := postgrestest.Start(t)
	url, metrics := server.URL(server.Database()), prometheus.NewRegistry()
	db, err := registry.OpenPostgres(t.Context(), registry.PostgresConfig{URL: url, Registerer: metrics})
	if err != nil {
		t.Fatal(err)
	}
	testValidateOnly(t, db, metrics, openSQL(t, "pgx", url), `SELECT table_name FROM information_schema.tables WHERE table_schema = current_schema()`)
}

func openSQL(t *testing.T, driver, name string) *sql.DB {
	t.Helper()
	db, err := sql.Open(driver, name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// testValidateOnly makes every call that has validate_only with it and without it, twice:
// with it the registry holds what it held, nobody is told, and the answer or the refusal
// is that of the real call.
func testValidateOnly(t *testing.T, db registry.Registry, metrics *prometheus.Registry, rows *sql.DB, tables string) {
	w := newWorldOver(t, db)
	admin := w.admin()
	o := w.enrol()
	limits := &pb.OrganizationLimits{MaxSubscriptions: 9}
	told := 0
	db.OnChange(func(cs []registry.Change) { told += len(cs) })
	on := func(mailbox, digit string) *pb.Subscription {
		return &pb.Subscription{Mailbox: mailbox, App: testApp, DeviceToken: device(digit)}
	}
	imported := &pb.AdminServiceImportSubscriptionsRequest{Organization: o.Name, Import: &pb.ImportSubscriptionsRequest{Subscriptions: []*pb.Subscription{
		on("c", "1"), on("d", "1"), on("c", "2"), on("c", "2"), on("", "3"), on("e", "4"), on("e", "5"), on("e", "6"), on("e", "7"), on("e", "8"), on("e", "9"), on("f", "9"),
	}}}
	ended := func() {
		gone, err := apns.ParseDeviceToken(device("4"))
		if err != nil {
			t.Fatal(err)
		}
		key := relay.MailboxKey{Organization: o.ID, Mailbox: "e"}
		if _, err := db.Remove(t.Context(), []relay.Removal{{Key: key, App: testApp, Device: gone, Reason: "Unregistered"}}); err != nil {
			t.Fatal(err)
		}
	}
	tried := map[protoreflect.FullName]bool{}
	for _, step := range []struct {
		before func()
		m      proto.Message
	}{
		{nil, &pb.AddOrganizationRequest{Name: "contoso.com", Limits: limits}},
		{nil, &pb.UpdateOrganizationRequest{Name: o.Name, Limits: limits}},
		{nil, &pb.AddCredentialRequest{Organization: o.Name, Certificate: testKey("one").Certificate.Raw}},
		{nil, &pb.AddCredentialRequest{Organization: "contoso.com", Certificate: testKey("one").Certificate.Raw}}, // the other's
		{nil, &pb.AdminServiceSubscribeRequest{Organization: o.Name, Subscribe: &pb.SubscribeRequest{Mailbox: "a", App: testApp, DeviceToken: device("1")}}},
		{nil, &pb.AdminServiceSubscribeRequest{Organization: o.Name, Subscribe: &pb.SubscribeRequest{Mailbox: "b", App: testApp, DeviceToken: device("1")}}},
		{nil, imported},
		{nil, &pb.AdminServiceUnsubscribeRequest{Organization: o.Name, Unsubscribe: &pb.UnsubscribeRequest{Mailbox: "c", App: testApp, DeviceToken: device("2")}}},
		{ended, &pb.RestoreSubscriptionsRequest{}},
		{nil, &pb.RemoveCredentialRequest{Organization: o.Name, Id: certs.Thumbprint(testKey("one").Certificate)}},
		{nil, &pb.RemoveOrganizationRequest{Name: o.Name}}, // it is enabled
		{nil, &pb.UpdateOrganizationRequest{Name: o.Name, Enabled: new(false)}},
		{nil, &pb.RemoveOrganizationRequest{Name: o.Name}},
		{nil, &pb.RestoreOrganizationRequest{Name: o.Name}},
		{nil, &pb.PurgeOrganizationRequest{Name: o.Name}}, // it is live
		{nil, &pb.RemoveOrganizationRequest{Name: o.Name}},
		{nil, &pb.PurgeOrganizationRequest{Name: o.Name}},
	} {
		name := step.m.ProtoReflect().Descriptor().FullName()
		tried[name] = true
		if step.before != nil {
			step.before()
		}
		for round := range 2 {
			before, counted, n := dump(t, rows, tables), writes(t, metrics), told
			if !setValidateOnly(step.m.ProtoReflect(), true) {
				t.Fatalf("%s has no validate_only", name)
			}
			would := answer(t, admin, step.m)
			if after := dump(t, rows, tables); after != before {
				t.Errorf("%s changed the registry from\n%s\nto\n%s", name, before, after)
			}
			if told != n || writes(t, metrics) != counted {
				t.Errorf("%s told %d changes and counted %d writes", name, told-n, writes(t, metrics)-counted)
			}
			setValidateOnly(step.m.ProtoReflect(), false)
			if did := answer(t, admin, step.m); did != would {
				t.Errorf("%s is answered\n%s\nand with validate_only\n%s", name, did, would)
			} else if changed := dump(t, rows, tables) != before; round == 0 && changed == strings.HasPrefix(did, "refused") {
				t.Errorf("%s changed the registry: %t, with the answer %s", name, changed, did)
			}
		}
	}
	methods := pb.File_badgerelay_v1_admin_proto.Services().ByName("AdminService").Methods()
	for i := range methods.Len() {
		m := methods.Get(i).Input()
		if has(m) && !tried[m.FullName()] {
			t.Errorf("%s has validate_only, and was not tried", m.FullName())
		}
	}
}

// has reports whether a request or one inside of it has validate_only.
func has(m protoreflect.MessageDescriptor) bool {
	for i := range m.Fields().Len() {
		f := m.Fields().Get(i)
		if f.Name() == "validate_only" || f.Message() != nil && !f.IsList() && has(f.Message()) {
			return true
		}
	}
	return false
}

// setValidateOnly sets it in a request or in the one inside; false: it is in neither.
func setValidateOnly(m protoreflect.Message, on bool) (found bool) {
	if f := m.Descriptor().Fields().ByName("validate_only"); f != nil {
		m.Set(f, protoreflect.ValueOfBool(on))
		return true
	}
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		found = found || f.Message() != nil && !f.IsList() && setValidateOnly(v.Message(), on)
		return true
	})
	return found
}

// answer makes a call, and returns its answer without ids and times, or its refusal.
func answer(t *testing.T, admin pb.AdminServiceClient, m proto.Message) string {
	t.Helper()
	var all []proto.Message
	add := func(answer proto.Message, err error) error {
		all = append(all, answer)
		return err
	}
	ctx := t.Context()
	if err := call(ctx, admin, m, add); err != nil {
		return "refused: " + prototext.Format(status.Convert(err).Proto())
	}
	var b strings.Builder
	for _, one := range all {
		forget(one.ProtoReflect())
		fmt.Fprintf(&b, "%T %s\n", one, prototext.MarshalOptions{}.Format(one))
	}
	return b.String()
}

func call(ctx context.Context, admin pb.AdminServiceClient, m proto.Message, add func(proto.Message, error) error) error {
	switch m := m.(type) {
	case *pb.AddOrganizationRequest:
		return add(admin.AddOrganization(ctx, m))
	case *pb.UpdateOrganizationRequest:
		return add(admin.UpdateOrganization(ctx, m))
	case *pb.RemoveOrganizationRequest:
		return add(admin.RemoveOrganization(ctx, m))
	case *pb.RestoreOrganizationRequest:
		return add(admin.RestoreOrganization(ctx, m))
	case *pb.PurgeOrganizationRequest:
		return add(admin.PurgeOrganization(ctx, m))
	case *pb.AddCredentialRequest:
		return add(admin.AddCredential(ctx, m))
	case *pb.RemoveCredentialRequest:
		return add(admin.RemoveCredential(ctx, m))
	case *pb.AdminServiceSubscribeRequest:
		return add(admin.Subscribe(ctx, m))
	case *pb.AdminServiceUnsubscribeRequest:
		return add(admin.Unsubscribe(ctx, m))
	case *pb.AdminServiceImportSubscriptionsRequest:
		stream, err := admin.ImportSubscriptions(ctx)
		if err == nil {
			err = stream.Send(m)
		}
		if err != nil {
			return err
		}
		return add(stream.CloseAndRecv())
	case *pb.RestoreSubscriptionsRequest:
		stream, err := admin.RestoreSubscriptions(ctx, m)
		for err == nil {
			err = add(stream.Recv())
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		return err
	}
	return fmt.Errorf("%T is not called", m)
}

// forget clears what is of a moment or made up.
func forget(m protoreflect.Message) {
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.Name() == "id", f.Message() != nil && f.Message().FullName() == "google.protobuf.Timestamp":
			m.Clear(f)
		case f.Message() != nil && f.IsList():
			for i := range v.List().Len() {
				forget(v.List().Get(i).Message())
			}
		case f.Message() != nil:
			forget(v.Message())
		}
		return true
	})
}

// dump returns every row of every table.
func dump(t *testing.T, db *sql.DB, tables string) string {
	t.Helper()
	var b strings.Builder
	for _, table := range rowsOf(t, db, tables) {
		fmt.Fprintln(&b, table)
		for _, row := range rowsOf(t, db, `SELECT * FROM `+strings.Trim(table, "[]")) {
			fmt.Fprintln(&b, " ", row)
		}
	}
	return b.String()
}

func rowsOf(t *testing.T, db *sql.DB, query string) (all []string) {
	t.Helper()
	rows, err := db.QueryContext(t.Context(), query)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		t.Fatal(err)
	}
	for rows.Next() {
		values := make([]any, len(columns))
		for i := range values {
			values[i] = new(any)
		}
		if err := rows.Scan(values...); err != nil {
			t.Fatal(err)
		}
		for i := range values {
			values[i] = *values[i].(*any)
		}
		all = append(all, fmt.Sprint(values))
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	slices.Sort(all)
	return all
}

// writes returns how many operations that change something the registry has counted.
func writes(t *testing.T, metrics *prometheus.Registry) (n uint64) {
	t.Helper()
	families, err := metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != "registry_operation_seconds" {
			continue
		}
		for _, m := range f.GetMetric() {
			switch m.GetLabel()[0].GetValue() {
			case "organization_write", "credential_write", "subscribe", "set_device", "unsubscribe", "import", "restore":
				n += m.GetHistogram().GetSampleCount()
			}
		}
	}
	return n
}
