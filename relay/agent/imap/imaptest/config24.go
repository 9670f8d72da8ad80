package imaptest

import "text/template"

// conf24 is conf for Dovecot 2.4. Its two versions come first in the file.
var conf24 = template.Must(template.New("dovecot-2.4.conf").Parse(`dovecot_config_version = 2.4.0
dovecot_storage_version = 2.4.0
base_dir = {{.Dir}}/run
state_dir = {{.Dir}}/state
log_path = {{.Dir}}/log
instance_name = badgetest
protocols = imap lmtp
listen = 127.0.0.1
ssl = no
auth_allow_cleartext = yes
default_login_user = {{.Login}}
default_internal_user = {{.Internal}}
default_internal_group = {{.Group}}
first_valid_uid = {{.UID}}
first_valid_gid = {{.GID}}
default_client_limit = 4000
default_process_limit = 400
mail_home = {{.Dir}}/mail/%{user}
mail_driver = maildir
mail_path = ~/Maildir
mail_uid = {{.UID}}
mail_gid = {{.GID}}
mail_fsync = never
mail_max_userip_connections = 0
mailbox_list_index = {{if .NoNotify}}no{{else}}yes{{end}}
mail_attribute {
  dict file {
    path = %{home}/dovecot-attributes
  }
}
namespace inbox {
  inbox = yes
  separator = /
}
auth_username_chars =
auth_username_format = %{user}
auth_master_user_separator = *
passdb masters {
  driver = passwd-file
  master = yes
  default_password_scheme = plain
  passwd_file_path = {{.Dir}}/masters
}
passdb all {
  driver = static
  passdb_static_password = {{.Password}}
}
userdb all {
  driver = static
  fields {
    uid = {{.UID}}
    gid = {{.GID}}
    home = {{.Dir}}/mail/%{user}
  }
  userdb_static_allow_all_users = yes
}
service imap-login {
  restart_request_count = unlimited
  process_min_avail = 1
  inet_listener imap {
    listen = 127.0.0.1
    port = {{.Port}}
  }
  inet_listener imaps {
    port = 0
  }
}
service imap {
  process_limit = 400
  restart_request_count = 100
}
service lmtp {
  process_limit = 10
  unix_listener lmtp {
    mode = 0600
  }
}
{{- if .Include}}
!include {{.Include}}
{{- end}}
protocol imap {
  imap_metadata = yes
}
{{- if .NoIdle}}
imap_capability {
  IDLE = no
  NOTIFY = no
}
{{- end}}
{{.More}}
`))
