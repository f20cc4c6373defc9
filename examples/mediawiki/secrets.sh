#!/bin/sh
# Makes the secrets that manifests/kustomization.yaml names, once.
set -eu
cd "$(dirname "$0")/manifests"
mkdir -p secrets
chmod 700 secrets
for name in database-password admin-password; do
  [ -s "secrets/$name" ] || head -c 18 /dev/urandom | base64 | tr '+/' '-_' | tr -d '\n' > "secrets/$name"
done
