#!/bin/sh
# Set-up, then two builds and all tests in each: optimized, with warnings as errors; and with the address and undefined
# behaviour sanitizers. Ends with a summary; status 0 only if everything passed.
set -u
cd "$(dirname "$0")/.."

scripts/setup.sh || exit 1

jobs=${MATQUANT_JOBS:-$(nproc)}
summary=
failed=0

# step NAME COMMAND...: runs it, and adds a line to the summary.
step() {
    name=$1
    shift
    echo "==> $name"
    started=$(date +%s)
    if "$@"; then
        outcome=passed
    else
        outcome=FAILED
        failed=1
    fi
    summary="$summary
$(printf '%-7s %4d s  %s' "$outcome" $(($(date +%s) - started)) "$name")"
    [ "$outcome" = passed ]
}

for preset in release sanitize; do
    step "$preset: configure" cmake --preset "$preset" -D MATQUANT_WERROR=ON &&
        step "$preset: build" cmake --build --preset "$preset" -j "$jobs" &&
        step "$preset: tests" ctest --preset "$preset" -j "$jobs"
done

printf '\nSummary%s\n' "$summary"
[ $failed = 0 ] && echo "All tests passed." || echo "There were failures."
exit $failed
