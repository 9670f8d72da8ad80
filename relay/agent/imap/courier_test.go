package imap

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"badgerelay/relay/freeport"
)

// courierUsers is how many users the Courier of make test-courier has.
const courierUsers = 60

// courierSetup makes the users, each with the password secret.
const courierSetup = `set -e
mkdir -p /run/courier/authdaemon
sed -i 's/^authmodulelist=.*/authmodulelist="authuserdb"/' /etc/courier/authdaemonrc
rm -rf /etc/courier/userdb /mail
mkdir -m 700 -p /etc/courier/userdb
pw=$(echo secret | userdbpw)
for i in $(seq -w 0 59); do
  u=user0$i
  mkdir -p /mail/$u/Maildir/cur /mail/$u/Maildir/new /mail/$u/Maildir/tmp
  printf '%s\thome=/mail/%s|mail=/mail/%s/Maildir|uid=65534|gid=65534|imappw=%s\n' $u $u $u "$pw" >> /etc/courier/userdb/all
done
chmod 600 /etc/courier/userdb/all
chown -R 65534:65534 /mail
makeuserdb
`

// courierServe is Courier's own way to start imapd, with its limit of 20
// connections from an address.
const courierServe = `set -a; . /etc/courier/imapd; IMAP_STARTTLS=NO; set +a
exec /usr/sbin/couriertcpd -address=127.0.0.1 -maxprocs=100 -maxperip=$MAXPERIP -nodnslookup $0 /usr/lib/courier/courier/imaplogin /usr/bin/imapd Maildir
`

// TestCourier watches more mailboxes than Courier allows connections, which it
// closes without a word. COURIER_ROOT names the directory of a Debian with it.
func TestCourier(t *testing.T) {
	root := os.Getenv("COURIER_ROOT")
	if root == "" {
		t.Skip("COURIER_ROOT is not set; make test-courier sets it")
	}
	start := func(args ...string) {
		command := exec.Command("chroot", append([]string{root}, args...)...)
		command.Stdout, command.Stderr = nil, nil // each login has a line
		must(t, command.Start())
		t.Cleanup(func() { _ = command.Process.Signal(syscall.SIGTERM); _ = command.Wait() }) // it may have ended
	}
	if out, err := exec.Command("chroot", root, "sh", "-c", courierSetup).CombinedOutput(); err != nil {
		t.Fatalf("set up: %v: %s", err, out)
	}
	address, err := freeport.Address() // couriertcpd has to be told a port
	must(t, err)
	_, port, _ := net.SplitHostPort(address)
	start("/usr/lib/courier/courier-authlib/authdaemond")
	start("sh", "-c", courierServe, port)
	for range 100 {
		if c, err := net.Dial("tcp", address); err == nil {
			must(t, c.Close())
			break
		}
		time.Sleep(100 * time.Millisecond) // it tells nobody when it serves
	}
	deliver := func(user, name string) {
		maildir := filepath.Join(root, "mail", user, "Maildir")
		file := filepath.Join(maildir, "tmp", name)
		must(t, os.WriteFile(file, []byte("Subject: x\n\nhello\n"), 0o644))
		must(t, os.Chown(file, 65534, 65534))
		must(t, os.Rename(file, filepath.Join(maildir, "new", name)))
	}
	var all []string
	for i := range courierUsers {
		user := fmt.Sprintf("user%03d", i)
		deliver(user, "1.one.x")
		all = append(all, user)
	}
	s, counts := run(t, Config{
		Address: address, Security: "none", PollInterval: 10 * time.Second,
		Login: func(user string) (Login, error) { return Login{User: user, Password: "secret"}, nil },
	})
	for _, user := range all {
		s.Watch(user)
	}
	for _, user := range all {
		counts.want(t, user, 1, "its first turn")
	}
	for _, user := range all {
		deliver(user, "2.two.x")
	}
	for _, user := range all {
		counts.want(t, user, 2, "its next turn")
	}
	if told := s.limit.told(); told > 21 || told < 5 {
		t.Errorf("%d connections are allowed, it thinks, want 20 or somewhat fewer", told)
	}
	if notes := strings.Join(s.Status().Notes, "; "); !strings.Contains(notes, "60 mailboxes take turns") {
		t.Errorf("the notes are %q", notes)
	}
}
