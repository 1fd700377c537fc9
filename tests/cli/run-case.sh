#!/bin/sh
# run-case.sh CASE: runs one case of the command line's tests; tests/cli/README.md says what a case is.
#
# CTest sets MATQUANT_PROGRAM, MATQUANT_SOURCE_DIR, MATQUANT_FIXTURE_DIR, MATQUANT_SHORT_MODEL and
# MATQUANT_SANITIZED.
set -u

case_path=$1
here=$(cd "$(dirname "$0")" && pwd)

work=$(mktemp -d "${TMPDIR:-/tmp}/matquant-cli.XXXXXX") || exit 1
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
mkdir "$work/bin" "$work/here" "$work/tmp" && ln -s "$MATQUANT_PROGRAM" "$work/bin/matquant" || exit 1
mkdir -p "$MATQUANT_FIXTURE_DIR"

PATH=$work/bin:$PATH
DATA=$MATQUANT_SOURCE_DIR/data
GOLDEN=$MATQUANT_SOURCE_DIR/tests/golden
CLI=$here
FIXTURES=$MATQUANT_FIXTURE_DIR
SANITIZED=$MATQUANT_SANITIZED
TMPDIR=$work/tmp
LC_ALL=C.UTF-8
export PATH DATA GOLDEN CLI FIXTURES SANITIZED TMPDIR LC_ALL
cd "$work/here" || exit 1

if [ ! -d "$case_path" ]; then
    sh -eu -c '. "$CLI/lib.sh"; . "$1"' "$(basename "$case_path")" "$case_path"
    exit
fi

# A folder: cmd, and what it must write and return.
sh -eu "$case_path/cmd" >"$work/stdout" 2>"$work/stderr" </dev/null
status=$?
failed=0
expected_status=0
[ ! -e "$case_path/status" ] || expected_status=$(cat "$case_path/status")
if [ "$status" != "$expected_status" ]; then
    echo "exit status $status, expected $expected_status"
    failed=1
fi
for stream in stdout stderr; do
    if [ -e "$case_path/$stream.match" ]; then
        while IFS= read -r pattern; do
            if ! grep -Eq -e "$pattern" "$work/$stream"; then
                echo "no line of $stream matches: $pattern"
                failed=1
            fi
        done <"$case_path/$stream.match"
    else
        expected=/dev/null
        [ ! -e "$case_path/$stream" ] || expected=$case_path/$stream
        if ! diff -u "$expected" "$work/$stream"; then
            echo "$stream differs from what is expected (lines with + are what was written)"
            failed=1
        fi
    fi
done
if [ $failed != 0 ]; then
    echo "--- stdout"
    cat "$work/stdout"
    echo "--- stderr"
    cat "$work/stderr"
fi
exit $failed
