#!/usr/bin/env bash
# estiba_VERSION_ARCH.deb in dist/: what `npm pack` brings with its production packages in /usr/lib/estiba, two commands in
# /usr/bin and a systemd unit. Built by dpkg-deb alone.
set -euo pipefail
cd "$(dirname "$0")/.."
version=$(node -p 'require("./package.json").version')
arch=$(dpkg --print-architecture)
stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
chmod 755 "$stage"

lib=$stage/usr/lib/estiba
mkdir -p "$lib" "$stage/usr/bin" "$stage/usr/lib/systemd/system" "$stage/DEBIAN" "$stage/usr/share/doc/estiba"
npm pack --silent --ignore-scripts --pack-destination "$stage" > /dev/null
tar -xzf "$stage"/estiba-*.tgz -C "$lib" --strip-components=1 --no-same-owner
rm "$stage"/estiba-*.tgz
cp package-lock.json "$lib/"
(cd "$lib" && npm ci --silent --omit=dev --ignore-scripts --no-audit --no-fund && rm package-lock.json)
for command in estiba estiba-oci; do ln -s "../lib/estiba/bin/$command" "$stage/usr/bin/$command"; done
cp packaging/estiba.service "$stage/usr/lib/systemd/system/"
cp LICENSE "$stage/usr/share/doc/estiba/copyright"

cat > "$stage/DEBIAN/control" << END
Package: estiba
Version: $version
Architecture: $arch
Maintainer: Estiba maintainers <maintainers@estiba.invalid>
Installed-Size: $(du -sk "$stage" | cut -f 1)
Depends: nodejs (>= 20.19)
Recommends: uidmap, mmdebstrap, busybox-static
Section: admin
Priority: optional
Description: container platform, from clone(2) to kubectl apply
 One daemon a node that runs containers, builds images, serves a registry and orchestrates applications,
 for docker, docker-compose and kubectl as they are.
END
# An upgrade restarts the daemon alone: containers go on under their shims, and the new daemon finds them.
# A snapshot (tools/snapshot.mjs) is of one Node.js: it is taken here, and again when dpkg brings another one.
echo 'interest-noawait /usr/bin/node' > "$stage/DEBIAN/triggers"
cat > "$stage/DEBIAN/postinst" << 'END'
#!/bin/sh
set -e
if [ "$1" = configure ] && [ -d /run/systemd/system ]; then
  systemctl daemon-reload
  systemctl try-restart estiba.service
fi
case $1 in
  configure | triggered) ! command -v node > /dev/null || node /usr/lib/estiba/tools/snapshot.mjs || : ;;
esac
END
cat > "$stage/DEBIAN/prerm" << 'END'
#!/bin/sh
set -e
if [ "$1" = remove ]; then
  [ ! -d /run/systemd/system ] || systemctl disable --now estiba.service
  [ ! -d /var/lib/estiba ] || echo 'estiba: containers go on, and /var/lib/estiba stays; `estiba daemon --remove`, before the package goes, takes both away'
  rm -rf /usr/lib/estiba/dist/planner-*.blob /usr/lib/estiba/dist/taking-*
fi
END
cat > "$stage/DEBIAN/postrm" << 'END'
#!/bin/sh
set -e
[ ! -d /run/systemd/system ] || systemctl daemon-reload
END
chmod 755 "$stage/DEBIAN/postinst" "$stage/DEBIAN/prerm" "$stage/DEBIAN/postrm"
mkdir -p dist
dpkg-deb --root-owner-group --build "$stage" "dist/estiba_${version}_$arch.deb"
