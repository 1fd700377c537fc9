# A text is read once: a pipe will do, and what the file is afterwards changes nothing. Nor does it matter for the provenance what
# becomes of the model's files while the text is waited for.
. "$CLI/shared.sh"
model=$short_model
digest() { python3 - "$@" <<'PY'
import hashlib, json, sys
folder, text, *path = sys.argv[1:]
value = json.load(open(folder + "/matquant.json"))
for key in path:
    value = value[int(key) if key.isdigit() else key]
assert value == hashlib.sha256(open(text, "rb").read()).hexdigest(), value
PY
}
small="--samples 2 --seq-len 32 --epochs 1 --group-size 32 --no-refit --gemm openblas -q" # runs are compared
mkfifo pipe pipe.jsonl
cat "$DATA/demo-calib.jsonl.gz" >pipe.jsonl &
run 0 matquant quantize "$model" -o m --calib pipe.jsonl $small # gzipped by its content
wait
digest m "$DATA/demo-calib.jsonl.gz" calibration files 0 sha256 || fail "not the digest of what came through the pipe"
cat "$DATA/demo-eval.txt" >pipe &
run 0 matquant eval m --text pipe --seq-len 64 --windows 1 --record -q
wait
digest m "$DATA/demo-eval.txt" evaluations 0 text sha256 || fail "not the digest of what was measured on"

# Other files in the place of those that were opened (a pipe can be written to when it has been opened to be read).
cp -r "$model" replaced
mkdir others
python3 - replaced others <<'PY'
import sys
for name, change in ("model.safetensors", lambda data: data[:-2] + b"\0\0"), ("config.json", lambda data: data + b" "), \
        ("tokenizer.json", lambda data: data + b" "):
    data = open(sys.argv[1] + "/" + name, "rb").read()
    assert change(data) != data, name
    open(sys.argv[2] + "/" + name, "wb").write(change(data))
PY
{
    mv others/* replaced
    cat "$DATA/demo-calib.jsonl.gz"
} >pipe.jsonl &
run 0 matquant quantize replaced -o m2 --calib pipe.jsonl $small
wait
expect_same m/model.safetensors m2/model.safetensors
for file in 0:model.safetensors 1:config.json 2:tokenizer.json; do
    cmp -s "$model/${file#*:}" "replaced/${file#*:}" && fail "${file#*:} was not replaced"
    digest m2 "$model/${file#*:}" source "${file%%:*}" sha256 || fail "not the digest of the $file that was learned from"
done

# Gone when the blocks are learned: everything was read.
cp "$DATA/demo-calib.jsonl.gz" text.jsonl.gz
python3 - "$model" <<'PY' || fail "the text was wanted twice"
import os, subprocess, sys
run = subprocess.Popen(["matquant", "quantize", sys.argv[1], "-o", "gone", "--calib", "text.jsonl.gz", "--samples", "64",
                        "--seq-len", "64", "--group-size", "32", "--no-refit"], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
for line in run.stderr:
    if line.startswith("learn"):
        if os.path.exists("text.jsonl.gz"):
            os.remove("text.jsonl.gz")
sys.exit(run.wait() or os.path.exists("text.jsonl.gz"))
PY
digest gone "$DATA/demo-calib.jsonl.gz" calibration files 0 sha256 || fail "not the digest of what was learned from"
