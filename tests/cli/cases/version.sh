# The version is that of the public header, on stdout, alone.
run 0 matquant --version
expect_no_err
header=$(sed -n 's/^#define MQ_VERSION "\(.*\)"$/\1/p' "$CLI/../../include/matquant/version.h")
[ "$(stdout)" = "matquant $header" ] || fail "expected: matquant $header"
