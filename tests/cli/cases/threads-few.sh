# needs: master
# Threads that cannot be started: status 4 and a line that says so, nothing left behind.
. "$CLI/shared.sh"
master=$FIXTURES/master/m
text="--text $DATA/demo-eval.txt --seq-len 32 --windows 2"
refused="^matquant: cannot start 32 threads: Resource temporarily unavailable\$"

for n in 1 31 32 62; do # of OpenBLAS, and of OpenMP
    run 4 env MATQUANT_FAULT=thread:$n:EAGAIN matquant slice "$master" -o out --bits 4 --threads 32 -q
    expect_one_error "$refused"
    expect_only
done
run 0 env MATQUANT_FAULT=thread:1:EAGAIN matquant slice "$master" -o out --bits 4 --threads 1 -q
rm -r out

# The system's own limit. It does not hold for root, but for a user with whose number nobody works here.
[ "$(id -u)" = 0 ] && [ "$SANITIZED" = 0 ] || exit 0
limited() {
    prlimit --nproc=6:6 setpriv --reuid=54321 --regid=54321 --clear-groups env OPENBLAS_NUM_THREADS=1 "$MATQUANT_PROGRAM" "$@"
}
chmod 777 .
limited --version >/dev/null 2>&1 || skip "processes cannot be limited, or another user cannot run the program"
run 4 limited slice "$master" -o out --bits 4 --format gptq --threads 32 -q
expect_one_error "$refused"
expect_only
run 4 limited eval "$master" --bits 4 $text --threads 32 -q
expect_one_error "$refused"
run 0 limited eval "$master" --bits 4 $text --threads 3 -q
