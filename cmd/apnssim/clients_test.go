package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestForeignClients pushes with programs that others wrote, as they are. The
// token is made with openssl, as in Apple's "Sending push notifications using
// command-line tools" (read 2026-11), so its signature is in DER.
func TestForeignClients(t *testing.T) {
	for _, tool := range []string{"openssl", "curl", "nghttp"} {
		if _, err := exec.LookPath(tool); err != nil {
			if os.Getenv("CI") != "" {
				t.Fatal(err)
			}
			t.Skipf("needs %s", tool)
		}
	}
	for _, strict := range []bool{false, true} {
		p := start(t, "--devices", "1", "--faults", "off", fmt.Sprintf("--strict=%t", strict))
		ca := filepath.Join(p.directory, "apnssim-ca.pem")
		authorization := "authorization: bearer " + p.opensslToken()
		url := "https://" + p.apns + "/3/device/" + p.devices()[0].Token
		payload := filepath.Join(t.TempDir(), "payload.json")
		for i, client := range []struct {
			name string
			args []string
		}{
			{"curl", []string{"curl", "-sv", "--http2", "--cacert", ca, "-H", authorization, "-H", "apns-topic: com.example.mail",
				"-H", "apns-push-type: alert", "--data", "@" + payload, url}},
			{"curl without ALPN", []string{"curl", "-sv", "--no-alpn", "--http2-prior-knowledge", "--cacert", ca, "-H", authorization,
				"-H", "apns-topic: com.example.mail", "--data", "@" + payload, url}},
			{"nghttp", []string{"nghttp", "-v", "-H", ":method: POST", "-H", authorization, "-H", "apns-topic: com.example.mail", "-d", payload, url}},
		} {
			badge := i + 1
			if err := os.WriteFile(payload, fmt.Appendf(nil, `{"aps":{"alert":"mail","badge":%d}}`, badge), 0o600); err != nil {
				t.Fatal(err)
			}
			cmd := exec.CommandContext(t.Context(), client.args[0], client.args[1:]...)
			out, err := cmd.CombinedOutput()
			shown := p.devices()[0].Badge
			switch {
			case strict && shown != 0:
				t.Errorf("%s, strict: the device shows %d, want the push refused", client.name, shown)
			case !strict && (shown != badge || err != nil):
				t.Errorf("%s: the device shows %d, want %d (%v)\n%s", client.name, shown, badge, err, out)
			}
		}
		p.stop()
	}
}

// opensslToken makes a provider token as Apple's recipe for a shell does.
func (p *running) opensslToken() string {
	p.t.Helper()
	const recipe = `
encode() { openssl base64 -e -A | tr -- '+/' '-_' | tr -d =; }
header=$(printf '{ "alg": "ES256", "kid": "SIMKEY0001" }' | encode)
claims=$(printf '{ "iss": "SIMTEAM001", "iat": %d }' "$ISSUED" | encode)
printf '%s.%s.%s' "$header" "$claims" "$(printf '%s.%s' "$header" "$claims" | openssl dgst -binary -sha256 -sign "$KEY" | encode)"`
	cmd := exec.CommandContext(p.t.Context(), "sh", "-c", recipe)
	cmd.Env = append(os.Environ(), fmt.Sprintf("ISSUED=%d", time.Now().Unix()), "KEY="+filepath.Join(p.directory, "AuthKey_SIMKEY0001.p8"))
	out, err := cmd.Output()
	if err != nil || strings.Count(string(out), ".") != 2 {
		p.t.Fatalf("make a token with openssl: %q, %v", out, err)
	}
	return string(out)
}
