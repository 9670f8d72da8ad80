#!/bin/sh
if [ -d /run/systemd/system ]; then
	systemctl daemon-reload
	if [ "$1" -ge 1 ]; then # upgraded: one that runs goes on with the new version
		systemctl try-restart @NAME@.service
	fi
fi
