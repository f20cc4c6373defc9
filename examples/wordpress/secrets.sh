#!/bin/sh
# Makes the secrets that compose.yaml names, once.
set -eu
cd "$(dirname "$0")"
mkdir -p secrets
chmod 700 secrets
for name in db_password admin_password; do
  [ -s "secrets/$name" ] || head -c 18 /dev/urandom | base64 | tr '+/' '-_' | tr -d '\n' > "secrets/$name"
done
