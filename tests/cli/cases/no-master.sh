# needs: master
# What is no master says which file is missing, or which one says that it is none.
. "$CLI/shared.sh"
master=$FIXTURES/master/m
text="--text $DATA/demo-eval.txt --seq-len 32 --windows 1 -q"

# each FOLDER REGEX: what every verb that reads models says of it; --bits 4 is for those that take it.
each() {
    for verb in "slice $1 -o out --bits 4" "eval $1 --bits 4 $text" "inspect $1" "verify $1"; do
        run 3 matquant $verb
        expect_one_error "^matquant: $2\$"
        expect_no_out
    done
}
mkdir empty
each empty 'empty/config\.json: is not there: the folder holds no model'
each nowhere 'nowhere: there is no such folder; a model is a folder on this machine, and nothing is downloaded'
cp "$master/config.json" file.gguf
cp "$master/config.json" file
each file.gguf 'file\.gguf: is a GGUF file, which matquant writes and does not read; eval measures the master .*'
each file 'file: is a file; a model is a folder with a config\.json'
run 3 matquant quantize empty -o out --recipe rtn
expect_one_error '^matquant: empty/config\.json: is not there: the folder holds no model$'
run 3 matquant quantize nowhere/model -o out --recipe rtn
expect_one_error '^matquant: nowhere/model: there is no such folder; .*$'
run 3 matquant quantize file -o out --recipe rtn
expect_one_error '^matquant: file: is a file; a model is a folder with a config\.json$'
cp -r "$master" weightless
rm weightless/model.safetensors
each weightless 'weightless/model\.safetensors: is not there, and neither is model\.safetensors\.index\.json; .*'

# A model as it was, and a slice.
run 3 matquant slice "$model" -o out --bits 4
expect_one_error '^matquant: .*demo-model/config\.json: has no quantization_config: the model is not quantized; slices are .*$'
run 2 matquant eval "$model" --bits 4 $text
expect_one_error '^matquant: .*demo-model/config\.json: has no quantization_config: the model is not quantized, and has no slice of 4 bits$'
run 3 matquant verify "$model"
expect_one_error '^matquant: .*demo-model/config\.json: is of a model that is not quantized: .*$'
run 0 matquant slice "$master" -o cut --bits 4 -q
run 3 matquant slice cut -o out --bits 4
expect_one_error '^matquant: cut/config\.json: is of a slice already; slices are cut from a master checkpoint$'
run 0 matquant slice "$master" -o plain --bits 4 --format safetensors -q
run 3 matquant verify plain
expect_one_error '^matquant: plain: is a slice in safetensors, plain weights that verify does not check; it checks masters, and .*'
run 0 matquant slice "$master" -o other --bits 4 --format gptq -q
each other 'other: is a slice in the format gptq, which matquant writes for other programs and does not read; .*'
rm other/matquant.json
each other 'other/config\.json: is quantized by another tool, quant_method "gptq"'

# Without provenance a master is one all the same; nothing is checked of what only that file says, which verify counts.
cp -r "$master" bare
rm bare/matquant.json
run 0 matquant slice bare -o out --bits 4 -q
run 0 matquant inspect bare
run 1 matquant verify bare
expect_err '^matquant: warning: bare/matquant\.json: is not there: there is no CRC-32 to check$'
run 3 matquant eval bare --bits 4 $text --record
expect_one_error '^matquant: bare/matquant\.json: .*$'
