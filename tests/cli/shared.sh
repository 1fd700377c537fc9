# What several cases need: `. "$CLI/shared.sh"`.

tools=$CLI/../tools
model=$DATA/demo-model
short_model=$MATQUANT_SHORT_MODEL # its first three blocks with a third of their channels, where that is enough

# The smallest settings that still learn. No measurement decides about bytes.
small="--calib $DATA/demo-calib.jsonl.gz --samples 4 --seq-len 32 --epochs 1 --group-size 32 --gemm openblas"

# broken DEFECT [SOURCE]: the folder `in` is the model (or SOURCE) with that defect.
broken() {
    rm -rf in
    python3 "$tools/break_model.py" "${2:-$model}" in "$1"
}

# refused DEFECT REGEX: quantize says why in one line that matches, ends with 3, and leaves nothing.
refused() {
    broken "$1"
    run 3 matquant quantize in -o out $small
    expect_one_error "^matquant: $2\$"
    expect_only in
}

# verified FOLDER: it is whole.
verified() {
    run 0 matquant verify "$1" --against "$model"
}

# golden_master MODEL KIND [KEY=JSON...]: `master`, by recipe rtn of a golden model with that kind of tokenizer
# (add_tokenizer.py), whose config.json has these fields. change_tokenizer: Python that changes `t`, its tokenizer.json.
golden_master() {
    rm -rf model master
    cp -rL "$GOLDEN/models/$1" model # weights that several share are links
    python3 "$tools/add_tokenizer.py" "$2" model
    python3 - "${change_tokenizer-}" "$@" <<'PY'
import json, sys
def changed(path, change):
    value = json.load(open(path))
    change(value)
    json.dump(value, open(path, "w"))
changed("model/config.json", lambda config: config.update(
    (key, json.loads(value)) for key, _, value in (field.partition("=") for field in sys.argv[4:])))
changed("model/tokenizer.json", lambda t: exec(sys.argv[1], {"t": t}))
PY
    run 0 matquant quantize model -o master --recipe rtn --group-size 8 -q
}
