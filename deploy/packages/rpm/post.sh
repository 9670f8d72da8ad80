#!/bin/sh
install -d -m 0700 -o @NAME@ -g @NAME@ /var/lib/@NAME@
if [ -d /run/systemd/system ]; then
	systemctl daemon-reload
fi
