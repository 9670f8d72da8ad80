#!/bin/sh
# Before its files are there, as some of them are its group's.
echo 'u @NAME@ - "@NAME@" /var/lib/@NAME@' | systemd-sysusers --replace=/usr/lib/sysusers.d/@NAME@.conf -
