package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"os"
	"strings"
	"testing"

	"badgerelay/apns/apnstest"
	"badgerelay/auth/authtest"
	"badgerelay/cmd/internal/command"
)

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	r := fetch(t, http.DefaultClient, url)
	return r.code, r.body
}

// getWith is get with a client that may have cookies.
func getWith(t *testing.T, client *http.Client, url string) string {
	t.Helper()
	return fetch(t, client, url).body
}

type fetched struct {
	code int
	body string
}

func fetch(t *testing.T, client *http.Client, url string) fetched {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	r, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close() // read to its end
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return fetched{r.StatusCode, string(body)}
}

func TestOperatorsDay(t *testing.T) {
	f := newFiles(t)
	sim, app := apple(t, f)
	s := serve(t, f.base(t, app))
	admin := func(code int, part string, args ...string) string {
		t.Helper()
		return want(t, code, part, append(args, "--admin", s.Admin)...)
	}
	token := strings.Repeat("0a", 32)

	admin(0, "Organization fabrikam.com is enrolled.", "organization", "add", "Fabrikam.com", "--max-subscriptions", "3")
	admin(1, "ORGANIZATION_EXISTS", "organization", "add", "fabrikam.com")
	admin(0, "The certificate is registered for fabrikam.com.", "credential", "add", "--organization", "fabrikam.com", "--certificate", f.rsaCertificate(t, "OAuthCert.cer"))
	if text := admin(1, "CREDENTIAL_EXISTS", "credential", "add", "--organization", "fabrikam.com", "--certificate", f.path("OAuthCert.cer")); !strings.Contains(text, "for fabrikam.com") {
		t.Errorf("%q does not say where the key is registered", text)
	}
	var listed struct {
		Credentials []struct{ ID, Thumbprint, Type, Usage string }
	}
	if err := json.Unmarshal([]byte(admin(0, "", "credential", "list", "--organization", "fabrikam.com", "--output", "json")), &listed); err != nil || len(listed.Credentials) != 1 {
		t.Fatalf("credential list = %+v, %v; want one", listed, err)
	}
	if c := listed.Credentials[0]; len(c.Thumbprint) != 40 || c.Type != "Asymmetric" || c.Usage != "Verify" {
		t.Errorf("credential = %+v", c)
	}

	subscription := []string{"--organization", "fabrikam.com", "--mailbox", "sales@fabrikam.com", "--app", "mail", "--device-token", token}
	admin(0, "The device is on sales@fabrikam.com now.", append([]string{"subscription", "add"}, subscription...)...)
	admin(0, "is renewed", append([]string{"subscription", "add"}, subscription...)...)
	admin(0, token, "subscription", "list", "--organization", "fabrikam.com")
	csv := f.write(t, "devices.csv", "device_token,mailbox,app\n"+strings.Repeat("0b", 32)+",info@fabrikam.com,mail\n"+strings.Repeat("0c", 32)+",info@fabrikam.com,other\n")
	admin(1, "1 created, 0 renewed, 1 refused.", "subscription", "import", "--organization", "fabrikam.com", csv)
	jsonl := f.write(t, "devices.jsonl", `{"mailbox":"info@fabrikam.com","app":"mail","deviceToken":"`+strings.Repeat("0b", 32)+`"}`)
	admin(0, "0 created, 1 renewed, 0 refused.", "subscription", "import", "--organization", "fabrikam.com", jsonl)
	admin(0, "Mailboxes        : 2, limit unlimited", "organization", "show", "fabrikam.com")
	admin(0, "Subscriptions    : 2, limit 10", "organization", "update", "fabrikam.com", "--max-subscriptions", "10")
	admin(0, "is disabled", "organization", "disable", "fabrikam.com")
	admin(0, "is enabled", "organization", "enable", "fabrikam.com")
	admin(0, "is not on", append([]string{"subscription", "remove"}, subscription...)...)
	admin(0, "there is nothing to remove", append([]string{"subscription", "remove"}, subscription...)...)

	admin(0, "ResultType : Succeeded", "probe")
	admin(0, `"resultType": "Succeeded"`, "probe", "--app", "mail", "--output", "json")
	admin(1, "APP_UNKNOWN", "probe", "--app", "other")
	if faults := sim.ClientFaults(); faults[apnstest.ClientBadRequest] != 0 {
		t.Errorf("the probe made client faults: %v", faults)
	}
	admin(0, "com.example.mail  production", "app", "list")
	admin(0, "Organizations       : 1", "status")
	admin(1, "is enabled", "organization", "remove", "fabrikam.com")
	admin(1, "ORGANIZATION_ENABLED", "organization", "remove", "fabrikam.com", "--yes")
	admin(0, "is disabled", "organization", "disable", "fabrikam.com")
	admin(2, "mailboxes (1), subscriptions (1) and credentials (1), which 'organization restore' can bring back for 30 days; --yes does it", "organization", "remove", "fabrikam.com")
	admin(0, "is removed", "credential", "remove", "--organization", "fabrikam.com", listed.Credentials[0].Thumbprint)
	admin(0, "is removed", "organization", "remove", "fabrikam.com", "--yes")
	admin(1, "ORGANIZATION_NOT_FOUND", "organization", "show", "fabrikam.com")
	admin(1, "ORGANIZATION_REMOVED", "organization", "add", "fabrikam.com")
	admin(0, "fabrikam.com", "organization", "list", "--removed")
	admin(0, "restored with its mailboxes (1) and subscriptions (1)", "organization", "restore", "fabrikam.com")
	admin(0, "Enabled          : no", "organization", "show", "fabrikam.com")
	admin(1, "organization fabrikam.com is live, and was not removed", "organization", "purge", "fabrikam.com", "--yes")
	admin(0, "is removed", "organization", "remove", "fabrikam.com", "--yes")
	admin(2, "--yes does it", "organization", "purge", "fabrikam.com")
	admin(0, "Nothing of organization fabrikam.com is kept", "organization", "purge", "fabrikam.com", "--yes")
	admin(1, "ORGANIZATION_NOT_FOUND", "organization", "restore", "fabrikam.com")
}

func TestImportFromStandardInput(t *testing.T) {
	f := newFiles(t)
	_, app := apple(t, f)
	s := serve(t, f.base(t, app))
	want(t, 0, "is enrolled", "organization", "add", "fabrikam.com", "--admin", s.Admin)
	code, out := executeWith(t, "sales@fabrikam.com, mail, "+strings.Repeat("ab", 32)+"\n", "subscription", "import", "--organization", "fabrikam.com", "--admin", s.Admin)
	if code != 0 || !strings.Contains(out, "1 created") {
		t.Errorf("import = %d, %q; want 1 created", code, out)
	}
}

func TestProbeSaysWhatToDo(t *testing.T) {
	f := newFiles(t)
	sim, app := apple(t, f)
	sim.RemoveTeamKey("TEAM123456", "KEYID12345")
	s := serve(t, f.base(t, app))
	out := want(t, command.Failed, "ResultType : Failed", "probe", "--admin", s.Admin)
	if !strings.Contains(out, "Error      : apns mail") || !strings.Contains(out, "InvalidProviderToken") || !strings.Contains(out, "check key_file, key_id and team_id") {
		t.Errorf("probe printed %s", out)
	}
}

func TestProbeWithoutAppsIsNoSuccess(t *testing.T) {
	s := serve(t, newFiles(t).base(t, ""))
	out := want(t, command.Failed, "ResultType : Failed", "probe", "--admin", s.Admin)
	if !strings.Contains(out, "no app is configured") || !strings.Contains(out, "registry          Succeeded") {
		t.Errorf("probe printed %s", out)
	}
}

func TestOpsListener(t *testing.T) {
	f := newFiles(t)
	_, app := apple(t, f)
	s := serve(t, f.base(t, app))
	base := "http://" + s.Ops
	for path, part := range map[string]string{
		"/healthz": "alive", "/readyz": "ready\napns mail: ", "/debug/pprof/": "goroutine",
		"/": "/metrics\n/healthz\n/readyz\n/status\n/status/json\n/debug/pprof/\n",
	} {
		if code, body := get(t, base+path); code != http.StatusOK || !strings.Contains(body, part) {
			t.Errorf("GET %s = %d %q, want 200 with %q", path, code, body, part)
		}
	}
	_, metrics := get(t, base+"/metrics")
	for _, name := range []string{
		`badgerelay_events_settled_total{outcome="delivered"} 0`, "badgerelay_events_pending 0", "badgerelay_build_info{", "go_goroutines ",
		`badgerelay_token_refusals_total{reason=`, "badgerelay_registry_operation_seconds", "badgerelay_apns_",
	} {
		if !strings.Contains(metrics, name) {
			t.Errorf("metrics lack %s", name)
		}
	}
}

func TestSocketIsPrivateAndGoesWithTheDaemon(t *testing.T) {
	f := newFiles(t)
	s := serve(t, f.base(t, ""))
	info, err := os.Stat(s.Admin)
	if err != nil {
		t.Fatal(err)
	}
	if got := info.Mode().Perm(); got != 0o600 || info.Mode().Type() != fs.ModeSocket {
		t.Errorf("admin socket has mode %v, want a socket with 0600", info.Mode())
	}
	if code := s.stop(t); code != command.Done {
		t.Errorf("serve = %d, want %d", code, command.Done)
	}
	if _, err := os.Stat(s.Admin); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
}

func TestStepsOfTheStopAreNamedInOrder(t *testing.T) {
	f := newFiles(t)
	_, app := apple(t, f)
	s := serve(t, f.base(t, app))
	s.stop(t)
	text, _ := s.log.read()
	last := -1
	for _, step := range []string{"draining", "step=ingest", "step=admin", "step=relay", "step=apns", `step="registry file"`, "step=ops", "msg=stopped"} {
		at := strings.Index(text, step)
		if at <= last {
			t.Errorf("%s is at %d of the log, want it after %d", step, at, last)
		}
		last = at
	}
}

func TestSecondProcessIsToldWhichFieldCollides(t *testing.T) {
	f := newFiles(t)
	s := serve(t, f.base(t, "listen: {address: \"127.0.0.1:0\"}"))
	f.write(t, "second.yaml", "listen: {address: \""+s.Agents+"\"}\nadmin: {socket: "+s.Admin+"}\nops: {address: \""+s.Ops+"\"}\nregistry: {path: "+f.path("other.db")+"}\n")
	out := want(t, command.Failed, "listen.address "+s.Agents+": another process listens there already", "serve", "--config", f.path("second.yaml"))
	if !strings.Contains(out, "ops.address") || !strings.Contains(out, "admin.socket "+s.Admin+": another badgerelay is running") {
		t.Errorf("serve printed %s", out)
	}
	if _, err := os.Stat(f.path("other.db")); err == nil {
		t.Error("the second process touched its registry before it failed")
	}
	want(t, command.Done, "Ready               : yes", "status", "--admin", s.Admin)
}

func TestOneRelayForARegistry(t *testing.T) {
	f := newFiles(t)
	s := serve(t, f.base(t, ""))
	second := f.write(t, "second.yaml", "listen: {address: \"127.0.0.1:0\"}\nops: {address: \"off\"}\nadmin: {socket: "+f.path("b.sock")+"}\nregistry: {path: "+f.path("registry.db")+"}\n")
	want(t, command.Failed, "registry.path "+f.path("registry.db")+": another relay uses this registry", "serve", "--config", second)
	s.stop(t)
	serve(t, second) // the lock went with the first
}

func TestFailuresAtStartNameTheField(t *testing.T) {
	f := newFiles(t)
	f.write(t, "garbage.db", strings.Repeat("this is not a database ", 100))
	for _, c := range []struct {
		code       int
		want, more string
	}{
		{command.Misused, "registry.path: the directory " + f.path("garbage.db") + " is not there and can't be made", "admin: {socket: " + f.path("a.sock") + "}\nregistry: {path: " + f.path("garbage.db/r.db") + "}"},
		{command.Misused, "registry.path " + f.path("garbage.db") + ": path is no SQLite database", "admin: {socket: " + f.path("a.sock") + "}\nregistry: {path: " + f.path("garbage.db") + "}"},
		{command.Misused, "admin.socket: the directory " + f.path("garbage.db") + " is not there and can't be made", "admin: {socket: " + f.path("garbage.db/a.sock") + "}\nregistry: {path: " + f.path("x.db") + "}"},
	} {
		file := f.write(t, "c.yaml", "listen: {address: \"127.0.0.1:0\"}\nops: {address: \"off\"}\n"+c.more+"\n")
		want(t, c.code, c.want, "serve", "--config", file)
	}
}

// shown returns the certificate that agents are shown, PEM.
func shown(t *testing.T, address string) string {
	t.Helper()
	dialer := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}}} // the certificate is all that is asked
	ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
	defer cancel()
	conn, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close() // nothing was written
	return string(authtest.CertificatePEM(conn.(*tls.Conn).ConnectionState().PeerCertificates[0]))
}

func TestReloadSwapsTheCertificateAndABadFileDoesNot(t *testing.T) {
	f := newFiles(t)
	_, app := apple(t, f)
	certificate, key := f.pair(t, "relay")
	listen := "listen: {address: \"127.0.0.1:0\", tls: {certificate_file: " + certificate + ", key_file: " + key + "}}\n"
	s := serve(t, f.base(t, listen+app))
	shows := func(when, want string) {
		t.Helper()
		if got := shown(t, s.Agents); got != want {
			t.Errorf("%s another certificate is shown", when)
		}
	}
	written := func() string {
		text, err := os.ReadFile(certificate)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	shows("at the start", written())

	f.pair(t, "relay")
	second := written()
	s.hup()
	s.log.wait(t, "reloaded certificates, authorities, new apps, app credentials, sums across organizations, limits and log level")
	shows("after a reload", second)

	f.write(t, "relay.crt", "not a certificate")
	s.hup()
	s.log.wait(t, "listen.tls.certificate_file")
	s.log.wait(t, "keeping the previous configuration")
	shows("after a bad reload", second)

	f.pair(t, "relay")
	f.base(t, listen+app+"products: {Dovecot: 2.3.0}\nlimits: {streams: 5}\n")
	s.hup()
	s.log.wait(t, "changed settings that wait for a restart")
	s.log.wait(t, "sections=[products]")
	shows("after the last reload", written())
	want(t, command.Done, "ResultType : Succeeded", "probe", "--admin", s.Admin)
}

func TestReloadTakesANewProviderKey(t *testing.T) {
	f := newFiles(t)
	sim, app := apple(t, f)
	s := serve(t, f.base(t, app))
	want(t, command.Done, "Succeeded", "probe", "--admin", s.Admin)
	fresh := newKey(t)
	sim.RemoveTeamKey("TEAM123456", "KEYID12345")
	sim.AddTeamKey(apnstest.TeamKey{TeamID: "TEAM123456", KeyID: "NEWKEY1234", Key: &fresh.PublicKey})
	f.key(t, "provider.p8", fresh)
	f.base(t, strings.ReplaceAll(app, "KEYID12345", "NEWKEY1234"))
	s.hup()
	s.log.wait(t, "reloaded certificates")
	want(t, command.Done, "Succeeded", "probe", "--admin", s.Admin)
}

func TestAdminOverTCPWantsACertificate(t *testing.T) {
	f := newFiles(t)
	server, serverKey := f.pair(t, "server")
	operator, operatorKey := f.pair(t, "operator")
	stranger, strangerKey := f.pair(t, "stranger")
	s := serve(t, f.write(t, "c.yaml", "listen: {address: \"127.0.0.1:0\"}\nops: {address: \"off\"}\nregistry: {path: "+f.path("r.db")+"}\n"+
		"admin:\n  address: 127.0.0.1:0\n  tls: {certificate_file: "+server+", key_file: "+serverKey+"}\n  client_ca_file: "+operator+"\n"))
	if _, port, _ := strings.Cut(s.Admin, ":"); port == "" {
		t.Fatalf("admin at %q, want a port", s.Admin)
	}
	want(t, command.Done, "Ready", "status", "--admin", s.Admin, "--tls-cert", operator, "--tls-key", operatorKey, "--ca", server, "--tls-name", "localhost")
	want(t, command.Unreachable, "", "status", "--timeout", "5s", "--admin", s.Admin, "--tls-cert", stranger, "--tls-key", strangerKey, "--ca", server, "--tls-name", "localhost")
}
