# Files that are missing, cut or not what their name says.
. "$CLI/shared.sh"
refused no-config 'in/config.json: is not there: the folder holds no model'
refused no-weights 'in/model.safetensors: is not there, and neither is model.safetensors.index.json; .*'
refused no-tokenizer 'in/tokenizer.json: cannot open: No such file or directory'
refused empty-weights 'in/model.safetensors: at byte 0: the file ends within the header length'
refused truncated 'in/model.safetensors: tensor model\.layers\.[0-9.a-z_]*: at byte [0-9]+: .*are not within the [0-9]+ bytes of data'
refused truncated-header 'in/model.safetensors: at byte 0: a header of [0-9]+ bytes in a file of 100'
refused config-not-json 'in/config.json: at byte [0-9]+: .*JSON.*'
refused tokenizer-not-json 'in/tokenizer.json: at byte [0-9]+: .*JSON.*'
refused missing-shard 'in/model-00007-of-00009.safetensors: cannot open: No such file or directory'
refused shard-truncated 'in/model-00001-of-00001.safetensors: tensor model\.layers\.[0-9.a-z_]*: at byte [0-9]+: .*are not within the [0-9]+ bytes of data'
refused index-not-json 'in/model.safetensors.index.json: at byte [0-9]+: .*JSON.*'
refused index-empty 'in/model.safetensors.index.json: "weight_map" is empty'
refused index-lies 'in/model.safetensors.index.json: tensor no\.such\.tensor: is not in model-00001-of-00001.safetensors'

rm -rf in
for verb in "quantize nowhere -o out $small" "slice nowhere -o out --bits 4" "inspect nowhere" "verify nowhere" \
    "eval nowhere --text $DATA/demo-eval.txt"; do
    run 3 matquant $verb
    expect_one_error '^matquant: nowhere: there is no such folder; .*$'
    expect_only
done
