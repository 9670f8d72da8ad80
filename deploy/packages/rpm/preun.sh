#!/bin/sh
# Removed, and not upgraded.
if [ "$1" = 0 ] && [ -d /run/systemd/system ]; then
	systemctl --no-reload disable --now @NAME@.service
fi
exit 0
