#!/usr/bin/env bash
# Peers' suites and engines: everything that needs other people's programs. `make suites` has installed them and built ours.
#   tools/suites.sh [FILTER…]      files of test/suites whose path has one of the words, e.g. compare, podman
# Each file is a run of its own: one that fails, hangs or leaves something behind is named, and the next one goes on. Ends with a line a
# file and the names of what failed, which stand in .cache/suites/summary.txt too, beside everything each of them said.
# A suite that cannot be run fails with the reason; none is skipped in silence. Checkouts are named by variables (test/suites/README.md);
# those that are not are fetched and built by tools/peers.sh where the network and the machine allow it.
#   ESTIBA_SUITE_SECONDS   the most that one file may take (default: 3600)
#   ESTIBA_SUITE_DRY=1     runs none: brings what they read, and counts the tests of each; a file that lacks something fails here already
set -uo pipefail
cd "$(dirname "$0")/.."
logs=.cache/suites
summary=$logs/summary.txt
most=${ESTIBA_SUITE_SECONDS:-3600}
passed=0 failed=0 skipped=0 broken=()

main() {
  local files file
  mapfile -t files < <(chosen "$@")
  [ ${#files[@]} -gt 0 ] || { echo "no file of test/suites has one of: $*" >&2; exit 2; }
  eval "$(tools/peers.sh "$@")"
  if [ "${ESTIBA_SUITE_DRY:-}" = 1 ]; then dry "${files[@]}"; exit; fi
  rm -rf $logs && mkdir -p $logs
  for file in "${files[@]}"; do run "$file"; done
  told "$passed passed, $failed failed, $skipped skipped in ${#files[@]} files$([ ${#broken[@]} -eq 0 ] || printf '; not whole: %s' "${broken[*]}")"
  [ ${#broken[@]} -eq 0 ]
}

chosen() { # FILTER…
  local file filter
  find test/suites -name '*.test.ts' | sort | while read -r file; do
    [ $# -gt 0 ] || echo "$file"
    for filter; do case $file in *"$filter"*) echo "$file"; break ;; esac; done
  done
}

dry() { # FILE…
  ESTIBA_TEST_LEAKS=off NO_COLOR=1 npx vitest list --project suites "$@" 2> >(grep -a 'Error' >&2) | sed 's/^\[suites\] //; s/ > .*//' | sort | uniq -c
}

told() { printf '%s\n' "$1" | tee -a $summary; }

run() { # FILE
  local file=$1 name log begun=$SECONDS code counts
  name=${file#test/suites/} name=${name%.test.ts}
  log=$logs/${name//\//-}.log
  NO_COLOR=1 timeout --kill-after=60 "$most" nice npx vitest run --project suites "$file" > "$log" 2>&1
  code=$?
  counts=$(grep -aE '^[0-9]+ passed, [0-9]+ failed, [0-9]+ skipped$' "$log" | tail -1)
  told "$(printf '%-28s %s, %d s' "$name" "${counts:-came to no end}" $((SECONDS - begun)))"
  read -r p f s <<< "$(tr -dc '0-9 ' <<< "${counts:-0 0 0}" | xargs)"
  passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
  [ $code -eq 0 ] && return
  broken+=("$name")
  # Names of tests, once each; where there are none, what else it ended of: leaks, above all.
  { grep -aE '^ *FAIL ' "$log" | sed -E 's/^ *FAIL +(\|?suites\|?)? */    failed: /' | sort -u; leftovers "$log"; } | tee -a $summary
  case $code in 124 | 137) told "    ended after $most s" ;; esac
}

leftovers() { # LOG
  sed -nE '/the tests left on this machine/,/^ *at /{/^ *at /d;s/^ */    /;p;}' "$1"
}

main "$@"
