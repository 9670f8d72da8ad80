#!/bin/sh
set -e
# Removed, it leaves configuration and data. Purged, it leaves what an
# administrator has put into /etc/@NAME@, such as keys; and the user, lest another
# one gets its number and its files.
if [ "$1" = purge ]; then
	rm -rf /var/lib/@NAME@
	rm -f /etc/systemd/system/multi-user.target.wants/@NAME@.service
fi
if [ -d /run/systemd/system ]; then
	systemctl daemon-reload
fi
