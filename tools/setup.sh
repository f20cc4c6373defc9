#!/usr/bin/env bash
# Installs the Debian packages a set of commands needs, once: setup.sh SET… with the sets of tools/packages.txt.
# Nothing is installed when all are present, so a machine without network but with the packages works.
set -euo pipefail
here=$(dirname "$0")
missing=()
for set in "$@"; do
  while IFS='|' read -r name command; do
    [ -z "$command" ] || ! command -v "$command" > /dev/null || continue
    dpkg-query -W -f '${Status}' "$name" 2>/dev/null | grep -q 'ok installed' || missing+=("$name")
  done < <(sed -n "s/^$set[[:space:]]\+\([^[:space:]#]\+\).*/\1/p" "$here/packages.txt")
done
[ ${#missing[@]} -eq 0 ] && exit 0
[ "$(id -u)" = 0 ] || { echo "these Debian packages are missing, and only root can install them: ${missing[*]}" >&2; exit 1; }
command -v apt-get >/dev/null || { echo "no apt-get here; install by hand: ${missing[*]}" >&2; exit 1; }
echo "installing ${missing[*]}"
# Peers bring services that would start at once; a policy of 101 forbids it, and is taken away again if it was ours.
policy=/usr/sbin/policy-rc.d
log=$(mktemp)
made=("$log")
trap 'rm -f "${made[@]}"' EXIT
if [ ! -e $policy ]; then
  made+=("$policy"); printf '#!/bin/sh\nexit 101\n' > $policy; chmod +x $policy
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends "${missing[@]}" > "$log" 2>&1 || { tail -20 "$log" >&2; exit 1; }
