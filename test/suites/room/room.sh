#!/usr/bin/env bash
# room.sh DIR: makes a private mount and network namespace for peers, and stays in it until it is killed. It writes its pid to
# DIR/pid once the room is ready; `nsenter -t PID -m -n` enters it.
#
# The cgroup hierarchies are the host's, below a tmpfs of the room's own: engines make plain directories for every controller
# that /proc/cgroups lists, mounted or not, and these must not stay behind on the host.
set -euo pipefail
dir=${1:?directory}
if [ "${2:-}" != inside ]; then
  exec unshare -m -n "$0" "$dir" inside
fi
mount --make-rprivate /
ip link set lo up
mkdir "$dir/cgroups"
mount -t tmpfs -o mode=755 cgroups "$dir/cgroups"
while read -r _ _ _ _ point _; do
  mkdir -p "$dir/cgroups/${point#/sys/fs/cgroup/}"
  mount --bind "$point" "$dir/cgroups/${point#/sys/fs/cgroup/}"
done < <(grep -E '^[^ ]+ [^ ]+ [^ ]+ [^ ]+ /sys/fs/cgroup/[^ ]+ .* - cgroup2? ' /proc/self/mountinfo)
mount --rbind "$dir/cgroups" /sys/fs/cgroup
mount -t tmpfs -o mode=755 run /run
echo $$ > "$dir/pid.new"
mv "$dir/pid.new" "$dir/pid"
exec sleep infinity
