# A dry run says what each disk has to hold: the output's also what --state adds, if that is on the same one. Nothing is written.
. "$CLI/shared.sh"
model=$short_model
other=/dev/shm
[ -w "$other" ] && [ "$(stat -c %d "$other")" != "$(stat -c %d .)" ] || skip "no second disk at $other"
dry="matquant quantize $model -o out $small --dry-run -q"
needed() { grep -Eo '^disk  .* needed' "$TMPDIR/stdout"; }
run 0 $dry
alone=$(needed)
run 0 $dry --state state
if grep -q '^disk of the state' "$TMPDIR/stdout"; then fail "one disk is two"; fi
[ "$(needed)" != "$alone" ] || fail "the state is not counted"
run 0 $dry --state state --json
stdout >same.json

state=$other/matquant-test-state-$$
run 0 $dry --state "$state"
expect_out '^disk of the state +[0-9.]+ [KMG]iB needed, [0-9.]+ [KMGT]iB free$'
[ "$(needed)" = "$alone" ] || fail "the state is counted on the output's disk"
run 0 $dry --state "$state" --json
stdout >apart.json
[ ! -e "$state" ] || fail "a dry run made the folder"
python3 - "$other" <<'PY' || fail "the members"
import json, os, sys
same, apart = (json.load(open(name + ".json")) for name in ("same", "apart"))
assert same["state"]["same_disk"] is True and apart["state"]["same_disk"] is False
assert same["state"]["bytes"] == apart["state"]["bytes"] > 0
assert same["output_bytes"] == apart["output_bytes"]


def near(bytes, folder):  # others write meanwhile
    about = os.statvfs(folder)
    return abs(bytes - about.f_bavail * about.f_frsize) < 1 << 30


assert near(same["disk_free"], ".") and near(same["state"]["disk_free"], "."), same
assert near(apart["disk_free"], ".") and near(apart["state"]["disk_free"], sys.argv[1]), apart
PY
expect_only apart.json same.json
