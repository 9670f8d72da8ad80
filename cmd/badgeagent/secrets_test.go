package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"badgerelay/cmd/badgeagent/internal/serve"
	"badgerelay/relay/agent/dovecot"

	"badgerelay/cmd/internal/command"
)

// What must not show anywhere. Device tokens are long, so that a cut one is
// found by its end.
const (
	imapPassword = "correct-horse-battery"
	dovecotToken = "dovecot-shows-this-one"
	backendToken = "backend-shows-this-one"
	wrongToken   = "somebody-shows-this-one"
	secretDevice = "5ec2e75ec2e75ec2e75ec2e75ec2e75ec2e75ec2e75ec2e75ec2e70ddba11c0f"
)

// strictMailServer refuses every login.
func strictMailServer(t *testing.T) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { _ = l.Close() })
	go func() { // ends with the listener
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			go func() { // ends when the agent leaves
				defer nc.Close()
				fmt.Fprint(nc, "* OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN] ready\r\n")
				for s := bufio.NewScanner(nc); s.Scan(); {
					tag, _, _ := strings.Cut(s.Text(), " ")
					fmt.Fprintf(nc, "%s NO [AUTHENTICATIONFAILED] not you\r\n", tag)
				}
			}()
		}
	}()
	return l.Addr().String()
}

// TestAgentSecretsStayInside runs the daemon at debug level, with a mail server that
// refuses it and back ends with and without the right, and looks for the
// agent's secrets in all that comes out of it.
func TestAgentSecretsStayInside(t *testing.T) {
	c, r := enrolled(t)
	r.devices["ann"] = secretDevice
	for name, secret := range map[string]string{"imap": imapPassword, "dovecot": dovecotToken, "backend": backendToken} {
		must(t, os.WriteFile(filepath.Join(c.dir, name), []byte(secret+"\n"), 0o600))
	}
	file := filepath.Join(c.dir, "badgeagent.yaml")
	must(t, os.WriteFile(file, []byte(strings.NewReplacer("DIR", c.dir, "IMAP", strictMailServer(t)).Replace(`
imap: {address: "IMAP", security: none, master_user: agent, master_password_file: DIR/imap}
dovecot: {enabled: true, token_file: DIR/dovecot}
local: {address: "127.0.0.1:0", token_file: DIR/backend}
ops: {address: "127.0.0.1:0"}
log: {level: debug, format: text}
drain_budget: 1s
`)), 0o600))

	var log bytes.Buffer // read when the daemon has ended
	serving, ended := make(chan serve.Serving, 1), make(chan struct{})
	a := &app{Terminal: &command.Terminal{Out: io.Discard, Err: &log}, dir: c.dir, host: host{ready: func(s serve.Serving) { serving <- s }}}
	ctx, stop := context.WithCancel(context.Background())
	var result error // read when the daemon has ended
	go func() {      // ends with ctx
		defer close(ended)
		result = a.runDaemon(ctx, file)
	}()
	t.Cleanup(func() { stop(); <-ended })
	var at serve.Serving
	select {
	case at = <-serving:
	case <-ended:
		t.Fatalf("run: %v before it served:\n%s", result, log.String())
	}
	ops, out := "http://"+at.Ops, map[string]string{}
	out["answers"] = troubledBackends(t, "http://"+at.Local[0])
	await(t, ops+"/metrics", "badgeagent_connected 1\n")
	await(t, ops+"/metrics", "badgeagent_imap_watch_failures_total [1-9]")
	_, out["metrics"] = fetch(t, http.MethodGet, ops+"/metrics", "", "")
	_, out["readyz"] = fetch(t, http.MethodGet, ops+"/readyz", "", "")
	out["auth-server show"] = c.ok("auth-server", "show", "--output", "json")
	out["cert show"] = c.ok("cert", "show", "--output", "json")
	_, probe, problem := c.run("probe", "--output", "json")
	out["probe"] = probe + problem
	stop()
	<-ended
	out["log"] = log.String()

	secrets := agentSecrets(t, c.dir)
	for where, text := range out {
		if len(text) < 10 {
			t.Errorf("%s is empty: nothing was looked at", where)
		}
		for what, secret := range secrets {
			if found := secret.FindString(text); found != "" {
				t.Errorf("%s shows the %s: %.60q", where, what, found)
			}
		}
	}
	for _, part := range []string{"level=DEBUG", "local request refused", "not you"} {
		if !strings.Contains(out["log"], part) {
			t.Errorf("the log never said %q: the day was too quiet\n%s", part, out["log"])
		}
	}
}

// troubledBackends does right and wrong on the local listener, and returns all
// answers to what was wrong.
func troubledBackends(t *testing.T, local string) (told string) {
	t.Helper()
	device := `{"mailbox":"ann","app":"mail","deviceToken":"` + secretDevice + `"}`
	if code, text := fetch(t, http.MethodPost, local+"/v1/subscribe", backendToken, device); code/100 != 2 {
		t.Fatalf("subscribe: %d %s", code, text)
	}
	if code, text := fetch(t, http.MethodPost, local+dovecot.LuaPath+"?user=ann&folder=INBOX&unseen=1", dovecotToken, ""); code/100 != 2 {
		t.Fatalf("notify: %d %s", code, text)
	}
	for _, wrong := range []struct{ path, token, body string }{
		{"/v1/subscribe", wrongToken, device},
		{"/v1/subscribe", dovecotToken, device},
		{"/v1/subscribe", backendToken, device[:len(device)-2]},
		{"/v1/subscribe", backendToken, strings.Replace(device, `"app"`, `"ap"`, 1)},
		{"/v1/unsubscribe", backendToken, strings.Replace(device, secretDevice, secretDevice+"zz", 1)},
		{dovecot.LuaPath + "?user=ann", backendToken, ""},
		{dovecot.LuaPath + "?user=&token=" + dovecotToken, dovecotToken, ""},
		{dovecot.LuaPath, dovecotToken, dovecotToken},
	} {
		_, text := fetch(t, http.MethodPost, local+wrong.path, wrong.token, wrong.body)
		told += text + "\n"
	}
	return told
}

// fetch asks with a token, if there is one.
func fetch(t *testing.T, method, address, token, body string) (code int, text string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, address, strings.NewReader(body))
	must(t, err)
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
		request.Header.Set("Content-Type", "application/json")
	}
	response, err := http.DefaultClient.Do(request)
	must(t, err)
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	must(t, err)
	return response.StatusCode, string(data)
}

// agentSecrets are patterns of what must not show: also the beginning and the
// end of the private key.
func agentSecrets(t *testing.T, dir string) map[string]*regexp.Regexp {
	t.Helper()
	plain := base64.StdEncoding.EncodeToString([]byte("ann\x00agent\x00" + imapPassword))
	secrets := map[string]*regexp.Regexp{
		"signed token":  regexp.MustCompile(`eyJ[A-Za-z0-9_-]{8,}`),
		"IMAP password": regexp.MustCompile(regexp.QuoteMeta(imapPassword) + "|" + regexp.QuoteMeta(plain[len(plain)-20:])),
		"local tokens":  regexp.MustCompile(dovecotToken + "|" + backendToken + "|" + wrongToken),
		"device token":  regexp.MustCompile(secretDevice[40:]),
	}
	keys, err := filepath.Glob(filepath.Join(dir, "*", "*.key"))
	must(t, err)
	more, err := filepath.Glob(filepath.Join(dir, "*.key"))
	must(t, err)
	for _, path := range append(keys, more...) {
		data, err := os.ReadFile(path)
		must(t, err)
		block, _ := pem.Decode(data)
		if block == nil {
			t.Fatalf("%s holds no key", path)
		}
		lines := strings.Split(string(data), "\n")
		secrets["private key "+path] = regexp.MustCompile("PRIVATE KEY|" + regexp.QuoteMeta(lines[1]) + "|" + regexp.QuoteMeta(lines[len(lines)-4]))
	}
	if len(keys)+len(more) == 0 {
		t.Fatal("the agent has no private key")
	}
	return secrets
}
