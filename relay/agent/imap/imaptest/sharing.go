package imaptest

// Sharing is configuration, to be read with Config.Include, by which users open
// each other's mailboxes below shared/, as ACLs let them: Admin sets those. The
// master user has the rights of whose mailboxes he opens.
func Sharing() string {
	if Is24() {
		return `
mail_plugins {
  acl = yes
}
acl_driver = vfile
acl_user = %{user}
namespace others {
  type = shared
  separator = /
  prefix = shared/$user/
  mail_path = %{owner_home}/Maildir
  subscriptions = no
  list = children
}
`
	}
	return `
mail_plugins = $mail_plugins acl
plugin {
  acl = vfile
  acl_user = %u
}
namespace others {
  type = shared
  separator = /
  prefix = shared/%%u/
  location = maildir:%%h/Maildir
  subscriptions = no
  list = children
}
`
}
