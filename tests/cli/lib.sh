# What the scripts in tests/cli/cases have at hand; read by run-case.sh before the case.

# fail MESSAGE...: ends the case as failed, with what the last `run` wrote.
fail() {
    echo "FAILED: $*"
    if [ -e "$TMPDIR/stdout" ]; then
        echo "--- last command: $last_command"
        echo "--- stdout"
        cat "$TMPDIR/stdout"
        echo "--- stderr"
        cat "$TMPDIR/stderr"
    fi
    exit 1
}

# skip MESSAGE...: ends the case as skipped (something that is not ours is missing on this machine).
skip() {
    echo "SKIPPED: $*"
    exit 77
}

# run STATUS COMMAND...: the command must end with exactly this exit status. Its output is kept for expect_*.
run() {
    expected=$1
    shift
    last_command=$*
    actual=0
    "$@" >"$TMPDIR/stdout" 2>"$TMPDIR/stderr" </dev/null || actual=$?
    [ "$actual" = "$expected" ] || fail "exit status $actual, expected $expected"
}

# expect_out REGEX / expect_err REGEX: a line of the last run's stdout / stderr matches (extended regular expression).
expect_out() { grep -Eq -e "$1" "$TMPDIR/stdout" || fail "no line of stdout matches: $1"; }
expect_err() { grep -Eq -e "$1" "$TMPDIR/stderr" || fail "no line of stderr matches: $1"; }

# The last run wrote nothing there.
expect_no_out() { [ ! -s "$TMPDIR/stdout" ] || fail "stdout is not empty"; }
expect_no_err() { [ ! -s "$TMPDIR/stderr" ] || fail "stderr is not empty"; }

# expect_one_error REGEX: stdout is empty, stderr is exactly one line, and it matches.
expect_one_error() {
    expect_no_out
    [ "$(wc -l <"$TMPDIR/stderr")" -eq 1 ] || fail "stderr is not one line"
    expect_err "$1"
}

# expect_same FILE FILE / expect_exists PATH / expect_only NAME...: same bytes; is there; the current folder holds
# these names and nothing else, hidden files counted (so no output was left behind).
expect_same() { cmp "$1" "$2" || fail "$1 and $2 differ"; }
expect_exists() { [ -e "$1" ] || fail "$1 is not there"; }
expect_only() {
    wanted=$(printf '%s\n' "$@" | sort)
    there=$(ls -A | sort)
    [ "$wanted" = "$there" ] || fail "in the current folder: $(echo $there); expected: $*"
}

# stdout of the last run, for cases that look closer.
stdout() { cat "$TMPDIR/stdout"; }
