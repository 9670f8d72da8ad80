package ews_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"badgerelay/relay/agent/ews"
	"badgerelay/relay/agent/ews/ewstest"
	"badgerelay/relay/freeport"
)

// What an acceptor takes that nobody here wrote: Apache with mod_auth_gssapi asks
// for Kerberos (a KDC of MIT's) or NTLM (gss-ntlmssp), and passes on to the
// simulator who it lets in.
func TestLoginsAtApache(t *testing.T) {
	needs(t, "/usr/sbin/apache2", "/usr/sbin/krb5kdc", "/usr/sbin/kadmin.local", "/usr/lib/apache2/modules/mod_auth_gssapi.so", "/etc/gss/mech.d/mech.ntlmssp.conf")
	k := newKDC(t)
	for _, c := range []struct {
		name, mechanism string
		right, wrong    func() (ews.Credentials, error)
	}{
		{"NTLM", "ntlmssp",
			func() (ews.Credentials, error) { return ews.NTLMLogin(`FABRIKAM\badgeagent`, password), nil },
			func() (ews.Credentials, error) { return ews.NTLMLogin(`FABRIKAM\badgeagent`, "wrong"), nil }},
		{"Negotiate", "krb5",
			func() (ews.Credentials, error) {
				return ews.KeytabLogin(ews.Keytab{Principal: "badgeagent@FABRIKAM.COM", File: k.path("agent.keytab"), Config: k.path("krb5.conf")})
			},
			func() (ews.Credentials, error) {
				return ews.KeytabLogin(ews.Keytab{Principal: "badgeagent@FABRIKAM.COM", File: k.path("stale.keytab"), Config: k.path("krb5.conf")})
			}},
	} {
		t.Run(c.name, func(t *testing.T) {
			ann := people(1)[0]
			server, err := ewstest.New(ewstest.Config{Mailboxes: people(1), Heartbeat: time.Second})
			must(t, err)
			must(t, server.Start())
			t.Cleanup(server.Stop)
			config := ews.Config{URL: k.apache(t, c.mechanism, server.URL()), Logger: slog.New(slog.NewTextHandler(t.Output(), nil))}
			config.Credentials, err = c.wrong()
			must(t, err)
			report, err := ews.Check(t.Context(), config, ann)
			if _, refused := errors.AsType[*ews.UnauthorizedError](err); !refused || !strings.Contains(fmt.Sprint(report.Offered), c.name) {
				t.Errorf("with a wrong key: %v; offered are %q", err, report.Offered)
			}
			config.Credentials, err = c.right()
			must(t, err)
			if report, err = ews.Check(t.Context(), config, ann); err != nil || !report.Heard || report.Scheme != c.name {
				t.Fatalf("with the right one: %+v, %v", report, err)
			}
			source, err := ews.New(config)
			must(t, err)
			r := &rig{t: t, server: server, source: source, sink: &sink{counts: make(map[string]uint32)}}
			r.run()
			defer r.stop()
			r.watch(ann)
			for range 3 {
				server.Deliver(ann)
				r.await(ann)
				server.CloseStreams(true)
			}
			if v := server.Violations(); v != nil {
				t.Errorf("the simulator holds against the source: %q", v)
			}
		})
	}
}

// await waits until a mailbox has the server's count: real servers take real time.
func (r *rig) await(mailbox string) {
	r.t.Helper()
	late := time.After(20 * time.Second)
	for tick := time.NewTicker(5 * time.Millisecond); ; {
		if got, known := r.sink.all()[mailbox]; known && got == r.server.Unread(mailbox) {
			tick.Stop()
			return
		}
		select {
		case <-tick.C:
		case <-late:
			r.t.Fatalf("%s has %d, the server says %d", mailbox, r.sink.all()[mailbox], r.server.Unread(mailbox))
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// needs ends the test where a file is missing. In CI it has to be there.
func needs(t *testing.T, files ...string) {
	t.Helper()
	for _, f := range files {
		if _, err := os.Stat(f); err != nil && os.Getenv("CI") != "" {
			t.Fatal(err)
		} else if err != nil {
			t.Skip(err)
		}
	}
}

// kdc is a Kerberos realm of its own, and what its services need.
type kdc struct{ dir string }

func (k *kdc) path(name string) string { return filepath.Join(k.dir, name) }

func newKDC(t *testing.T) *kdc {
	dir, err := os.MkdirTemp("", "badge-kdc-") // Apache's workers must be able to read it
	must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) }) // a leftover fails nothing
	must(t, os.Chmod(dir, 0o755))
	k := &kdc{dir}
	address, err := freeport.Address()
	must(t, err)
	k.write(t, "krb5.conf", fmt.Sprintf("[libdefaults]\ndefault_realm = FABRIKAM.COM\ndns_lookup_kdc = false\ndns_lookup_realm = false\nudp_preference_limit = 1\nrdns = false\ndns_canonicalize_hostname = false\n"+
		"[realms]\nFABRIKAM.COM = {\n kdc = %s\n}\n[domain_realm]\nlocalhost = FABRIKAM.COM\n", address))
	k.write(t, "kdc.conf", fmt.Sprintf("[kdcdefaults]\nkdc_listen = \"\"\nkdc_tcp_listen = %s\n[realms]\nFABRIKAM.COM = {\n database_name = %s\n key_stash_file = %s\n}\n[logging]\nkdc = FILE:%s\n",
		address, k.path("principal"), k.path("stash"), k.path("kdc.log")))
	k.run(t, "/usr/sbin/kdb5_util", "create", "-s", "-r", "FABRIKAM.COM", "-P", "master")
	for _, command := range []string{
		"addprinc -randkey HTTP/localhost", "ktadd -k " + k.path("http.keytab") + " HTTP/localhost",
		"addprinc -randkey badgeagent", "ktadd -k " + k.path("stale.keytab") + " badgeagent", "ktadd -k " + k.path("agent.keytab") + " badgeagent",
	} {
		k.run(t, "/usr/sbin/kadmin.local", "-r", "FABRIKAM.COM", "-q", command)
	}
	must(t, os.Chmod(k.path("http.keytab"), 0o644))
	k.write(t, "ntlm", "FABRIKAM:badgeagent:"+password+"\n")
	k.serve(t, address, "/usr/sbin/krb5kdc", "-n", "-r", "FABRIKAM.COM")
	return k
}

// apache asks for the mechanism and passes on to an address. It returns its own.
func (k *kdc) apache(t *testing.T, mechanism, to string) string {
	address, err := freeport.Address()
	must(t, err)
	conf, store := "apache-"+mechanism+".conf", ""
	if mechanism == "krb5" {
		store = "GssapiCredStore keytab:" + k.path("http.keytab")
	}
	var modules strings.Builder
	for _, m := range []string{"mpm_event", "authn_core", "authz_core", "authz_user", "auth_gssapi", "proxy", "proxy_http"} {
		fmt.Fprintf(&modules, "LoadModule %s_module /usr/lib/apache2/modules/mod_%s.so\n", m, m)
	}
	k.write(t, conf, modules.String()+fmt.Sprintf(`
ServerRoot %s
ServerName localhost
User www-data
Group www-data
PidFile %s
DefaultRuntimeDir %s
Mutex file:%s
ErrorLog %s
Listen %s
KeepAliveTimeout 60
<Location /EWS>
  AuthType GSSAPI
  AuthName Exchange
  GssapiSSLonly Off
  GssapiConnectionBound On
  GssapiAllowedMech %s
  %s
  Require valid-user
  ProxyPass %s flushpackets=on
</Location>
`, k.dir, k.path(mechanism+".pid"), k.dir, k.dir, k.path(mechanism+".log"), address, mechanism, store, strings.TrimSuffix(to, "/Exchange.asmx")))
	k.serve(t, address, "/usr/sbin/apache2", "-X", "-f", k.path(conf))
	t.Cleanup(func() {
		if log, err := os.ReadFile(k.path(mechanism + ".log")); t.Failed() && err == nil {
			t.Logf("Apache's log:\n%s", log)
		}
	})
	return "http://" + strings.Replace(address, "127.0.0.1", "localhost", 1) + ewstest.Path // a service has a name
}

func (k *kdc) write(t *testing.T, name, content string) {
	t.Helper()
	must(t, os.WriteFile(k.path(name), []byte(content), 0o644))
}

func (k *kdc) command(ctx context.Context, program string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append(os.Environ(), "KRB5_CONFIG="+k.path("krb5.conf"), "KRB5_KDC_PROFILE="+k.path("kdc.conf"), "NTLM_USER_FILE="+k.path("ntlm"), "KRB5RCACHENAME=none:")
	return cmd
}

func (k *kdc) run(t *testing.T, program string, args ...string) {
	t.Helper()
	if out, err := k.command(t.Context(), program, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v\n%s", program, args, err, out)
	}
}

// serve runs a server until the test ends, and waits until it listens.
func (k *kdc) serve(t *testing.T, address, program string, args ...string) {
	t.Helper()
	cmd := k.command(context.Background(), program, args...)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	must(t, cmd.Start())
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }() // ends with the kill below
	t.Cleanup(func() { _ = cmd.Process.Kill(); <-ended })
	late := time.After(20 * time.Second)
	for {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			_ = conn.Close() // it listens
			return
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ended:
			t.Fatalf("%s ended: %s", program, &out)
		case <-late:
			t.Fatalf("%s does not listen", program)
		}
	}
}
