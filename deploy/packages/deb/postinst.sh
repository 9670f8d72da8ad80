#!/bin/sh
set -e
if [ "$1" = configure ]; then
	systemd-sysusers /usr/lib/sysusers.d/@NAME@.conf
	# Root's, readable by the group; what an administrator has changed stays.
	for path in /etc/@NAME@ /etc/@NAME@/@NAME@.yaml; do
		if [ -z "$2" ] && [ -e "$path" ] && ! dpkg-statoverride --list "$path" >/dev/null; then
			chgrp @NAME@ "$path"
		fi
	done
	install -d -m 0700 -o @NAME@ -g @NAME@ /var/lib/@NAME@
	# It is not started before it is configured and enabled. One that is enabled
	# or runs goes on with the new version; if that does not start, the package is
	# installed all the same.
	if [ -d /run/systemd/system ]; then
		systemctl daemon-reload
		if [ -n "$2" ]; then
			deb-systemd-invoke restart @NAME@.service || true
		fi
	fi
fi
