#!/usr/bin/env bash
# Peers' suites and engines: everything that needs other people's programs. `make suites` has installed them and built ours.
#   tools/suites.sh [FILTER…]      vitest filters, e.g. compare, podman
# A suite that cannot be run fails with the reason; none is skipped in silence.
set -euo pipefail
cd "$(dirname "$0")/.."
exec nice npx vitest run --project suites "$@"
