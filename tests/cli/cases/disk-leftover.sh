# What a killed run has left on a disk is as good as free there, since the next run of the same output removes it; for a dry run,
# too. What it has left of another output is not.
. "$CLI/shared.sh"
model=$short_model
mkdir disk
mount -t tmpfs -o size=4m tmpfs disk 2>/dev/null || skip "no right to mount a small disk"
trap 'umount disk' EXIT
quantize="matquant quantize $model -o disk/out --recipe rtn --group-size 32 -q"

# left NAME: all of the disk is that output's, as a killed run leaves it.
left() {
    mkdir "disk/.$1.matquant-abcDEF"
    dd if=/dev/zero of="disk/.$1.matquant-abcDEF/model.safetensors" bs=64k 2>/dev/null || :
}
gone() { rm -r disk/.*.matquant-abcDEF; }

left other
run 4 $quantize
expect_one_error '^matquant: disk/out: [0-9]+ MiB of disk are needed and 0 MiB are free$'
gone
left out
run 0 $quantize --dry-run --json
stdout | python3 -c 'import json, sys; sys.exit(not 3 << 20 < json.load(sys.stdin)["disk_free"] <= 4 << 20)' ||
    fail "not free in a dry run"
run 0 $quantize
[ "$(ls -A disk)" = out ] || fail "left behind: $(ls -A disk)"
mv disk/out .

left other
run 4 matquant slice out -o disk/int8 --bits 8 -q
expect_one_error '^matquant: disk/int8: needs [0-9]+ bytes, the disk has 0$'
gone
for output in int8 int8.gguf; do
    left $output
    run 0 matquant slice out -o disk/$output --bits 8 -q
    [ "$(ls -A disk)" = $output ] || fail "left behind: $(ls -A disk)"
    rm -r disk/$output
done
