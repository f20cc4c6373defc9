#!/usr/bin/env bash
# Peers' suites and engines: everything that needs other people's programs. `make suites` has installed them and built ours.
#   tools/suites.sh [FILTER…]      vitest filters, e.g. compare, podman
# A suite that cannot be run fails with the reason; none is skipped in silence. Checkouts are named by variables (test/suites/README.md);
# those that are not are fetched and built by tools/peers.sh where the network and the machine allow it.
set -euo pipefail
cd "$(dirname "$0")/.."
eval "$(tools/peers.sh "$@")"
exec nice npx vitest run --project suites "$@"
