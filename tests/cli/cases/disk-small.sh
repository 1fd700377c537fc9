# A disk that is too small: found before the first block, status 4, nothing left behind.
. "$CLI/shared.sh"
mkdir disk
mount -t tmpfs -o size=1m tmpfs disk 2>/dev/null || skip "no right to mount a small disk"
trap 'umount disk' EXIT
run 4 matquant quantize "$model" -o disk/out $small
expect_one_error '^matquant: disk/out: [0-9]+ MiB of disk are needed and [01] MiB are free$'
[ -z "$(ls -A disk)" ] || fail "left behind: $(ls -A disk)"
