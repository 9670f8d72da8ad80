package imaptest

import (
	"fmt"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"regexp"
	"strings"
	"text/template"
)

// Debian's nobody and nogroup: Dovecot, run by root, wants mail to belong to
// somebody else.
const nobody, nogroup = 65534, 65534

// settings is what the template is filled with.
type settings struct {
	Config
	Dir, Port              string
	UID, GID               int
	Login, Internal, Group string // who Dovecot's own processes run as
	Root                   bool
	Password               string
}

var conf = template.Must(template.New("dovecot.conf").Parse(`
base_dir = {{.Dir}}/run
state_dir = {{.Dir}}/state
log_path = {{.Dir}}/log
instance_name = badgetest
protocols = imap lmtp
listen = 127.0.0.1
ssl = no
disable_plaintext_auth = no
default_login_user = {{.Login}}
default_internal_user = {{.Internal}}
default_internal_group = {{.Group}}
first_valid_uid = {{.UID}}
first_valid_gid = {{.GID}}
default_client_limit = 4000
default_process_limit = 400

mail_home = {{.Dir}}/mail/%u
mail_location = maildir:~/Maildir
mail_uid = {{.UID}}
mail_gid = {{.GID}}
mail_fsync = never
mail_max_userip_connections = 0
mailbox_list_index = {{if .NoNotify}}no{{else}}yes{{end}}
mail_attribute_dict = file:%h/dovecot-attributes
namespace inbox {
  inbox = yes
  separator = /
}

# Every user exists; names are taken as they come.
auth_username_chars =
auth_username_format = %u
auth_master_user_separator = *
passdb {
  driver = passwd-file
  master = yes
  args = scheme=plain username_format=%u {{.Dir}}/masters
}
passdb {
  driver = static
  args = password={{.Password}}
}
userdb {
  driver = static
  args = uid={{.UID}} gid={{.GID}} home={{.Dir}}/mail/%u allow_all_users=yes
}

service imap-login {
  {{- if not .Root}}
  chroot =
  {{- end}}
  service_count = 0
  process_min_avail = 1
  inet_listener imap {
    address = 127.0.0.1
    port = {{.Port}}
  }
  inet_listener imaps {
    port = 0
  }
}
service imap {
  process_limit = 400
  service_count = 100
}
service lmtp {
  process_limit = 10
  unix_listener lmtp {
    mode = 0600
  }
}
{{- if not .Root}}
service anvil {
  chroot =
}
{{- end}}
{{- if .Include}}
!include {{.Include}}
{{- end}}
protocol imap {
  imap_metadata = yes
  mail_plugins = $mail_plugins
}
{{- if .NoIdle}}
imap_capability = IMAP4rev1 SASL-IR LITERAL+ UIDPLUS MOVE CONDSTORE
{{- end}}
{{.More}}
`))

// write makes the directory into one that Dovecot can run in.
func (s *Server) write(c Config) error {
	if path := s.LMTP; len(path) > 100 {
		return fmt.Errorf("%s is too long for the path of a socket", path)
	}
	_, port, err := net.SplitHostPort(s.IMAP)
	if err != nil {
		return err
	}
	set := settings{
		Config: c, Dir: s.Dir, Port: port, UID: os.Getuid(), GID: os.Getgid(), Root: os.Getuid() == 0,
		Password: Password,
	}
	if err := set.users(); err != nil {
		return err
	}
	for _, name := range []string{"run", "state", "mail"} {
		if err := os.MkdirAll(filepath.Join(s.Dir, name), 0o755); err != nil {
			return err
		}
	}
	if set.Root { // its mail belongs to nobody, who has to reach it
		if err := os.Chmod(s.Dir, 0o755); err != nil {
			return err
		}
		if err := os.Chown(filepath.Join(s.Dir, "mail"), set.UID, set.GID); err != nil {
			return err
		}
	}
	if err := os.WriteFile(filepath.Join(s.Dir, "masters"), []byte(Master+":{plain}"+MasterPassword+"\n"), 0o644); err != nil {
		return err
	}
	set.Dir = s.inside(s.Dir)
	if set.Include != "" {
		if err := s.include(&set); err != nil {
			return err
		}
	}
	text := conf
	if Is24() {
		text = conf24
	}
	var b strings.Builder
	if err := text.Execute(&b, set); err != nil {
		return err
	}
	return os.WriteFile(s.conf(), []byte(b.String()), 0o644)
}

// named finds the files that a configuration names.
var named = regexp.MustCompile(`/[^\s"<>:=]+`)

// include has Dovecot in another root find the included file, and those on this
// machine that it names: copies in the server's directory.
func (s *Server) include(set *settings) error {
	if s.root == "" {
		return nil
	}
	text, err := os.ReadFile(set.Include)
	if err != nil {
		return err
	}
	own := named.ReplaceAllStringFunc(string(text), func(path string) string {
		data, err := os.ReadFile(path)
		if err != nil {
			return path // no file, or none of this machine
		}
		copied := filepath.Join(s.Dir, filepath.Base(path))
		if os.WriteFile(copied, data, 0o644) != nil {
			return path
		}
		return s.inside(copied)
	})
	set.Include = s.inside(filepath.Join(s.Dir, "included.conf"))
	return os.WriteFile(filepath.Join(s.Dir, "included.conf"), []byte(own), 0o644)
}

// users says who Dovecot's processes run as: the users of Debian's package if
// root starts it, else everything is the caller's.
func (s *settings) users() error {
	if s.Root {
		s.UID, s.GID = nobody, nogroup
		s.Login, s.Internal, s.Group = "dovenull", "dovecot", "dovecot"
		return nil
	}
	me, err := user.Current()
	if err != nil {
		return err
	}
	group, err := user.LookupGroupId(me.Gid)
	if err != nil {
		return err
	}
	s.Login, s.Internal, s.Group = me.Username, me.Username, group.Name
	return nil
}
