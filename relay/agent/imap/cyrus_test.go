package imap

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"
	"github.com/emersion/go-sasl"

	"badgerelay/relay/agent/imap/imaptest"
	"badgerelay/relay/freeport"
)

// cyrusServe sets Cyrus up with a user badgeagent who may log in for others, and
// runs it on a port of loopback.
const cyrusServe = `set -e
mkdir -p /run/cyrus/socket /run/cyrus/proc /run/cyrus/lock
rm -rf /var/lib/cyrus/* /var/spool/cyrus/mail/*
cat > /etc/test-imapd.conf <<X
configdirectory: /var/lib/cyrus
proc_path: /run/cyrus/proc
mboxname_lockpath: /run/cyrus/lock
defaultpartition: default
partition-default: /var/spool/cyrus/mail
altnamespace: yes
unixhierarchysep: yes
proxyservers: badgeagent
autocreate_post: yes
autocreate_users: anyone
autocreate_quota: 0
autocreate_inbox_folders: Entw&APw-rfe
allowplaintext: yes
sasl_pwcheck_method: auxprop
sasl_auxprop_plugin: sasldb
sasl_mech_list: PLAIN
lmtpsocket: /run/cyrus/socket/lmtp
idlesocket: /run/cyrus/socket/idle
X
cat > /etc/test-cyrus.conf <<X
START {
 recover cmd="/usr/sbin/cyrus ctl_cyrusdb -C /etc/test-imapd.conf -r"
 idled cmd="idled -C /etc/test-imapd.conf"
}
SERVICES {
 imap cmd="imapd -C /etc/test-imapd.conf" listen="127.0.0.1:$0" prefork=0 maxchild=100
 lmtpunix cmd="lmtpd -C /etc/test-imapd.conf" listen="/run/cyrus/socket/lmtp" prefork=0 maxchild=20
}
EVENTS {
 checkpoint cmd="/usr/sbin/cyrus ctl_cyrusdb -C /etc/test-imapd.conf -c" period=30
}
X
chown -R cyrus:mail /run/cyrus /var/lib/cyrus /var/spool/cyrus
echo master-key | saslpasswd2 -p -c badgeagent
chown cyrus /etc/sasldb2
su -s /bin/sh cyrus -c /usr/lib/cyrus/bin/makedirs
exec /usr/sbin/cyrmaster -D -C /etc/test-imapd.conf -M /etc/test-cyrus.conf -p /run/cyrmaster.pid
`

// TestCyrus watches and counts mailboxes of Cyrus over each way that it has: 3.10,
// which announces IMAP4rev2 beside IMAP4rev1, and 3.6, which has no NOTIFY.
// CYRUS_ROOT names the directory of a Debian with it.
func TestCyrus(t *testing.T) {
	root := os.Getenv("CYRUS_ROOT")
	if root == "" {
		t.Skip("CYRUS_ROOT is not set; make test-cyrus sets it")
	}
	address, err := freeport.Address() // Cyrus has to be told a port
	must(t, err)
	_, port, _ := net.SplitHostPort(address)
	command := exec.Command("chroot", root, "sh", "-c", cyrusServe, port)
	must(t, command.Start())
	t.Cleanup(func() { _ = command.Process.Signal(syscall.SIGTERM); _ = command.Wait() }) // it may have ended
	lmtp := &imaptest.Server{LMTP: filepath.Join(root, "run/cyrus/socket/lmtp")}
	for range 200 {
		if c, err := net.Dial("tcp", address); err == nil {
			must(t, c.Close())
			break
		}
		time.Sleep(100 * time.Millisecond) // it tells nobody when it serves
	}
	for _, tt := range []struct {
		watch   string
		folders []string
	}{
		{"idle", nil}, {"notify", nil}, {"notify", []string{"INBOX", "Entwürfe"}}, {"auto", []string{"INBOX", "Entwürfe"}}, {"poll", nil},
	} {
		if tt.watch == "notify" && !capable(t, address, imap.CapNotify) {
			t.Log("this Cyrus has no NOTIFY")
			continue
		}
		user := strings.ToLower(tt.watch) + string(rune('a'+len(tt.folders)))
		must(t, lmtp.Deliver(user, "one"))
		c := Config{
			Address: address, Security: "none", Login: Master("badgeagent", "master-key", ""),
			Watch: tt.watch, Folders: tt.folders, PollInterval: 10 * time.Minute,
		}
		if tt.watch == "poll" {
			c.PollInterval = time.Second
		}
		s, counts := run(t, c)
		if got, err := s.Count(t.Context(), user); err != nil || got.Unread != 1 || got.Version == 0 || len(got.Missing) > 0 {
			t.Errorf("%s %v: Count = %+v, %v, want one of folders that are all there", tt.watch, tt.folders, got, err)
		}
		s.Watch(user)
		counts.want(t, user, 1, "at the start")
		must(t, lmtp.Deliver(user, "two"))
		counts.want(t, user, 2, tt.watch)
	}
}

// capable says whether a server has a capability, once somebody has logged in.
func capable(t *testing.T, address string, c imap.Cap) bool {
	t.Helper()
	client, err := imapclient.DialInsecure(address, nil)
	must(t, err)
	defer client.Close()
	must(t, client.Authenticate(sasl.NewPlainClient("capable", "badgeagent", "master-key")))
	return client.Caps().Has(c)
}
