#!/usr/bin/env bash
# kernel.sh DIR: Debian's cloud kernel, unpacked and never installed, as DIR/vmlinuz. Its package comes through apt.
set -euo pipefail
dir=${1:?directory}
[ -s "$dir/vmlinuz" ] && exit 0
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
chmod 755 "$work" # apt downloads as the user _apt when it can
package=$(apt-cache depends linux-image-cloud-amd64 | awk '/Depends: linux-image-/ { print $2; exit }')
[ -n "$package" ] || { echo "apt knows no linux-image-cloud-amd64: run apt-get update" >&2; exit 1; }
(cd "$work" && apt-get -q download "$package" >/dev/null)
dpkg-deb -x "$work"/*.deb "$work/root"
cp "$work"/root/boot/vmlinuz-* "$work/vmlinuz"
mv "$work/vmlinuz" "$dir/vmlinuz"
