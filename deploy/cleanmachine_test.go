package deploy_test

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestGuideOnACleanMachine makes a Debian, boots it with systemd in a container
// without network, and does there what the guide says, in its own words: install
// relay and agent, enrol, send a mail, upgrade, back up, restore, stop. Apple is
// the simulator on loopback. It takes minutes, root, debootstrap and
// systemd-container: `make clean-machine`.
func TestGuideOnACleanMachine(t *testing.T) {
	m := bootDebian(t, cleanDebian(t), "dovecot-imapd", "dovecot-lmtpd")
	m.bring(t, ".", "../deploy")
	m.bring(t, "bin", "../bin/badgerelay", "../bin/badgeagent", "../bin/apnssim")
	relay := blocks(t, read(t, "install.md"), "**On a machine with systemd**", "**As a container.**")
	agent := blocks(t, read(t, "mailbox.md"), "## Install beside Dovecot", "Send ann a mail: the icon shows it.")
	upgrade := blocks(t, read(t, "operate.md"), "## Upgrade", "## Rotate everything")

	m.run(t, "what a site has: a name, a certificate, Apple's key, a mailbox", `
echo 127.0.0.1 relay.example.com >> /etc/hosts
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 90 -keyout relay.example.com.key -out relay.example.com.crt \
  -subj /CN=relay.example.com -addext subjectAltName=DNS:relay.example.com
cp relay.example.com.crt /usr/local/share/ca-certificates/relay.crt && update-ca-certificates
systemd-run --unit=apple $PWD/bin/apnssim --generate-key /root/sim --key-id ABC123DEFG --team DEF123GHIJ --devices 1 --faults off
until curl -sf http://127.0.0.1:2198/api/devices; do sleep 0.1; done
cp /root/sim/AuthKey_ABC123DEFG.p8 . && install -m 0644 /root/sim/apnssim-ca.pem /etc/apple-ca.pem
useradd -m ann && echo ann:secret | chpasswd
mkdir /backup`)
	// The simulator in Apple's place is all that differs from the guide.
	relay = strings.Replace(relay, "    topic: com.example.mail\n", "    topic: com.example.mail\n    address: 127.0.0.1:2197\n    ca_file: /etc/apple-ca.pem\n", 1)
	m.want(t, m.run(t, "install the relay", relay), "The configuration is valid.", "an impossible device token came back as BadDeviceToken", "ResultType : Succeeded")
	m.run(t, "enrol", "badgerelay organization add fabrikam.com")
	token := regexp.MustCompile(`"token":"([0-9a-f]+)"`).FindStringSubmatch(m.run(t, "a phone", "curl -s http://127.0.0.1:2198/api/devices"))
	agent = strings.Replace(agent, "00fc13ad...", token[1], 1)
	// Between steps 2 and 3 the relay's operator registers the certificate.
	agent = strings.Replace(agent, "runuser -u badgeagent -- badgeagent auth-server",
		"badgerelay credential add --organization fabrikam.com --certificate /var/lib/badgeagent/OAuthCert.cer\nrunuser -u badgeagent -- badgeagent auth-server", 1)
	m.want(t, m.run(t, "install the agent", agent), "\nready\n", "Mail server Succeeded", "The device is on ann@fabrikam.com now.")

	mail := `printf 'From: bob@fabrikam.com\nTo: ann@fabrikam.com\nSubject: hello\n\nhi\n' | /usr/lib/dovecot/dovecot-lda -d ann` + "\n"
	m.run(t, "a mail", mail+badge("1"))
	m.run(t, "it is read", `curl -s -u ann:secret 'imap://127.0.0.1/INBOX' -X 'STORE 1 +FLAGS (\Seen)'`+"\n"+badge("0"))
	upgrade = regexp.MustCompile(`registry-\d{4}-\d\d-\d\d\.db`).ReplaceAllString(upgrade, `registry-$(date +%F).db`)
	m.want(t, m.run(t, "upgrade, back up, restore", upgrade), "organizations: 1, credentials: 1, subscriptions: 1")
	m.run(t, "a mail after the restore", mail+badge("1"))
	m.run(t, "a relay that hangs is started again", `
kill -STOP $(systemctl show badgerelay -p MainPID --value)
timeout 90 sh -c 'until [ $(systemctl show badgerelay -p NRestarts --value) = 1 ] && systemctl is-active badgerelay; do sleep 1; done'
`+mail+badge("2"))
	m.want(t, m.run(t, "reload and stop", `systemctl reload badgerelay badgeagent && systemctl stop badgerelay badgeagent
systemctl show badgerelay badgeagent -p Result -p ExecMainStatus`), "Result=success\nExecMainStatus=0\n\nResult=success\nExecMainStatus=0\n")
}

// badge waits until the phone shows the number.
func badge(number string) string {
	return `timeout 20 sh -c 'until curl -s http://127.0.0.1:2198/api/devices | grep -q "\"badge\":` + number + `,"; do sleep 0.2; done'`
}

// blocks returns the commands of a part of the guide, fenced or indented, one
// after the other.
func blocks(t *testing.T, guide, from, to string) string {
	t.Helper()
	_, part, found := strings.Cut(guide, "\n"+from)
	part, _, more := strings.Cut(part, "\n"+to)
	if !found || !more {
		t.Fatalf("the guide has nothing between %q and %q", from, to)
	}
	var out strings.Builder
	fenced := false
	for line := range strings.Lines(part) {
		switch text, indented := strings.CutPrefix(line, "    "); {
		case strings.HasPrefix(strings.TrimSpace(line), "```"):
			fenced = !fenced
		case fenced:
			out.WriteString(strings.TrimPrefix(line, "   "))
		case indented:
			out.WriteString(text)
		}
	}
	return out.String()
}

// cleanDebian returns the release of Debian that CLEAN_MACHINE names (bookworm,
// trixie); without one the test is skipped.
func cleanDebian(t *testing.T) string {
	t.Helper()
	release := os.Getenv("CLEAN_MACHINE")
	if release == "" {
		t.Skip("installs and boots a Debian: make clean-machine, as root")
	}
	return release
}

// debian makes a Debian of the release with more packages in a directory of the
// test's. The first time debootstrap takes minutes; its work is kept in bin.
func debian(t *testing.T, release string, packages ...string) string {
	t.Helper()
	if _, err := exec.LookPath("debootstrap"); err != nil {
		t.Fatalf("%v: apt-get install debootstrap", err)
	}
	base := "../bin/debian-" + release
	if _, err := os.Stat(base); err != nil {
		making := base + ".making"
		command(t, "rm", "-rf", "--one-file-system", making) // what an interrupted run left
		command(t, "debootstrap", "--variant=minbase", "--include=systemd-sysv,dbus,procps,curl,openssl,netbase,ca-certificates",
			release, making, "http://deb.debian.org/debian")
		command(t, "mv", making, base)
	}
	root := filepath.Join(t.TempDir(), "debian")
	command(t, "cp", "-a", base, root)
	if len(packages) > 0 {
		policy := filepath.Join(root, "usr/sbin/policy-rc.d")
		if err := os.WriteFile(policy, []byte("#!/bin/sh\nexit 101\n"), 0o755); err != nil { //nolint:gosec // a program
			t.Fatal(err)
		}
		command(t, "chroot", append([]string{root, "env", "DEBIAN_FRONTEND=noninteractive",
			"apt-get", "install", "-y", "-qq", "--no-install-recommends"}, packages...)...)
		command(t, "rm", policy)
	}
	return root
}

// machine is a booted Debian, in whose /root/badgerelay commands run.
type machine struct{ root, leader string }

// bring puts files of this repository into a directory below /root/badgerelay.
func (m *machine) bring(t *testing.T, directory string, files ...string) {
	t.Helper()
	there := filepath.Join(m.root, "root/badgerelay", directory)
	command(t, "mkdir", "-p", there)
	command(t, "cp", append([]string{"-r", "--target-directory=" + there}, files...)...)
}

// bootDebian boots a Debian of the release, with more packages, as a machine
// without network.
func bootDebian(t *testing.T, release string, packages ...string) *machine {
	t.Helper()
	for _, program := range []string{"systemd-nspawn", "nsenter"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Fatalf("%v: apt-get install systemd-container", err)
		}
	}
	root := debian(t, release, packages...)
	command(t, "mkdir", filepath.Join(root, "root/badgerelay"))

	// Where systemd does not run already, nspawn wants /run to be memory. It
	// shares no network, and is known to no other program.
	boot := exec.CommandContext(t.Context(), "unshare", "--mount", "--kill-child", "sh", "-c",
		"mount -t tmpfs tmpfs /run && exec systemd-nspawn -D "+root+" --boot --register=no --keep-unit --private-network --console=pipe --machine=clean-"+release)
	var log bytes.Buffer
	boot.Stdout, boot.Stderr = &log, &log
	boot.Cancel = func() error { return boot.Process.Signal(os.Interrupt) }
	boot.WaitDelay = 20 * time.Second
	if err := boot.Start(); err != nil {
		t.Fatal(err)
	}
	m := &machine{root: root}
	t.Cleanup(func() {
		if m.leader != "" {
			_, _ = m.inside(context.Background(), "systemctl poweroff --no-block") // if not, boot's context ends it
		}
		_ = boot.Wait() // by then it is off
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for m.leader == "" { // nobody tells when it has booted
		m.leader = leader(root)
		if err := exec.CommandContext(ctx, "sleep", "0.2").Run(); err != nil {
			t.Fatalf("it does not boot: %s", log.String())
		}
	}
	m.run(t, "booted", "timeout 60 sh -c 'until systemctl is-system-running | grep -qE \"running|degraded\"; do sleep 0.5; done'")
	return m
}

// leader returns the process id of the systemd whose root it is; empty: none.
func leader(root string) string {
	processes, err := filepath.Glob("/proc/[0-9]*/comm")
	if err != nil {
		return ""
	}
	want, _ := os.Stat(filepath.Join(root, "etc/machine-id")) // nil as long as there is none
	for _, comm := range processes {
		name, _ := os.ReadFile(comm) // it may have ended
		dir := filepath.Dir(comm)
		if id, err := os.Stat(dir + "/root/etc/machine-id"); string(name) == "systemd\n" && err == nil && os.SameFile(id, want) {
			return filepath.Base(dir)
		}
	}
	return ""
}

func (m *machine) inside(ctx context.Context, script string) ([]byte, error) {
	return exec.CommandContext(ctx, "nsenter", "--target", m.leader, "--all", "--root", "--wd", "env", "-i", "HOME=/root",
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "bash", "-ec", "cd /root/badgerelay\n"+script).CombinedOutput()
}

// run does something on the machine as root; the first command that fails ends
// the test.
func (m *machine) run(t *testing.T, what, script string) string {
	t.Helper()
	out, err := m.inside(t.Context(), script)
	if err != nil {
		journal, _ := m.inside(t.Context(), "journalctl -u badgerelay -u badgeagent -u dovecot -n 40 -o cat --no-pager")
		t.Fatalf("%s: %v\n%s\n%s", what, err, out, journal)
	}
	t.Logf("%s: done", what)
	return string(out)
}

// columns are what stands between the columns of a table, as wide as its entries.
var columns = regexp.MustCompile(`  +`)

// want looks for the parts in what something has printed, however wide its columns.
func (m *machine) want(t *testing.T, out string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains("\n"+columns.ReplaceAllString(out, " "), part) {
			t.Errorf("no %q in\n%s", part, out)
		}
	}
}

func command(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
}
