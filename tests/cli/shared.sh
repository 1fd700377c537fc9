# What several cases need: `. "$CLI/shared.sh"`.

tools=$CLI/../tools
model=$DATA/demo-model

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
