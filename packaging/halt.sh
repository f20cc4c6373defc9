#!/bin/sh
# estiba.service runs this when the daemon has ended: halt.sh NAME. A restart leaves containers alone. A machine that goes down ends them, as
# `docker stop` does: what still runs then gets a SIGTERM from systemd, which the first process of a container does not feel unless it has
# a handler, and systemd waits for it for 90 s.
set -u
GRACE_S=10
[ "$(systemctl is-system-running)" = stopping ] || exit 0

pids() { find /sys/fs/cgroup/"$1" /sys/fs/cgroup/pids/"$1" -name cgroup.procs -exec cat {} + 2> /dev/null; }

# First of its process namespace: the last of its numbers is 1.
is_first() { grep -qs '^NSpid:.*[[:space:]]1$' "/proc/$1/status"; }

for pid in $(pids "$1"); do is_first "$pid" && kill -TERM "$pid" 2> /dev/null; done
waited=0
while [ -n "$(pids "$1")" ] && [ $waited -lt $((GRACE_S * 10)) ]; do
  sleep 0.1
  waited=$((waited + 1))
done
for pid in $(pids "$1"); do kill -KILL "$pid" 2> /dev/null; done
exit 0
