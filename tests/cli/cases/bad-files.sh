# Files that are missing, cut or not what their name says.
. "$CLI/shared.sh"
refused no-config 'in/config.json: is not there: the folder holds no model'
refused no-weights 'in/model.safetensors: is not there, and neither is model.safetensors.index.json; .*'
refused adapter 'in: holds an adapter, not a model: merge it into its base first .*'
lfs='is a Git LFS pointer in place of the file; fetch it with git lfs pull or hf download'
refused lfs-weights "in/model.safetensors: $lfs"
refused lfs-shard "in/model-00001-of-00001.safetensors: $lfs"
refused lfs-tokenizer "in/tokenizer.json: $lfs"
for copied in 'lfs-tokenizer tokenizer.json' 'lfs-template chat_template.jinja'; do
    broken "${copied% *}"
    run 3 matquant quantize in -o out --recipe rtn # which would only copy it
    expect_one_error "^matquant: in/${copied#* }: $lfs\$"
    expect_only in
done
refused old-tokenizer 'in/tokenizer.json: is not there, and tokenizer\.model is not read; transformers makes tokenizer\.json of it: AutoTokenizer.*'
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
refused index-dots-out 'in/model.safetensors.index.json: tensor model\.norm\.weight: "weight_map" does not give the name .*'

# An index may spell a file's name so, and may list a head that is the embeddings.
for defect in index-dots index-head; do
    broken $defect
    run 0 matquant quantize in -o out --recipe rtn --group-size 32 -q
    run 0 matquant inspect in
    run 0 matquant verify out --against in
    rm -r out
done

# Folders of the hub's cache hold the model further below.
rm -rf in
mkdir -p models--owner--name/snapshots/0123 models--owner--name/refs
run 3 matquant quantize models--owner--name -o out $small
expect_one_error "^matquant: models--owner--name: is a folder of the hub's cache: the model is in snapshots/REVISION below it\$"
expect_only models--owner--name
rm -r models--owner--name

for verb in "quantize nowhere -o out $small" "slice nowhere -o out --bits 4" "inspect nowhere" "verify nowhere" \
    "eval nowhere --text $DATA/demo-eval.txt"; do
    run 3 matquant $verb
    expect_one_error '^matquant: nowhere: there is no such folder; .*$'
    expect_only
done
