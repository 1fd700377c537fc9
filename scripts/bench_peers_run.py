#!/usr/bin/env python3
"""What scripts/bench-peers.sh and scripts/bench-tax.sh run in the peers' environment.

    bench_peers_run.py ids MODEL CALIB OUT.npy --samples 64 --seq-len 512
    bench_peers_run.py autoround MODEL IDS.npy OUT --bits 2 --group-size 64 --iters 64 --batch 4 --threads 2
    bench_peers_run.py gptq      MODEL IDS.npy OUT --bits 4 --group-size 64 --threads 2

`ids` cuts calibration text into sequences of token ids, which all quantizers get; where the tokenizer's template begins
with a token (Gemma's does), each sequence does. The others quantize, write OUT as a
plain Hugging Face folder whose quantized weights are the dequantized numbers in float32, and print a JSON object; what
they time is the quantizer alone, without importing it and without writing. --group-size 0 is one group a row; a layer whose
rows --group-size does not divide gets --group-fallback. Packages: requirements-peers.txt.
"""
import argparse
import gzip
import importlib.metadata
import json
import pathlib
import random
import shutil
import tempfile
import time

import numpy


def calibration_ids(options):
    import tokenizers

    tokenizer = tokenizers.Tokenizer.from_file(str(options.model / "tokenizer.json"))
    opener = gzip.open if options.source.suffix == ".gz" else open
    with opener(options.source, "rt", encoding="utf-8", newline="") as file:
        if ".jsonl" in options.source.name:
            text = "\n\n".join(json.loads(line)["text"] for line in file if line.strip())
        else:
            text = file.read()
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    plain, marked = (tokenizer.encode("a", add_special_tokens=special).ids for special in (False, True))
    begin = marked[: marked.index(plain[0])]
    length = options.seq_len - len(begin)
    windows = [begin + ids[at : at + length] for at in range(0, len(ids) - length + 1, length)]
    if len(windows) < options.samples:
        raise SystemExit(f"{options.source}: {len(windows)} sequences of {options.seq_len} tokens instead of {options.samples}")
    chosen = random.Random(options.seed).sample(windows, options.samples)
    numpy.save(options.out, numpy.array(chosen, dtype=numpy.int32))


def model_weights(options):
    import safetensors.torch

    tensors = {}
    for path in sorted(options.model.glob("*.safetensors")):
        tensors.update(safetensors.torch.load_file(path))
    return tensors


def check_near(source, weights, bits):
    """Codes that were read in a wrong order give weights that have nothing to do with the source's. (In 8 bits a group that is
    a whole row comes out at 0.9997.)"""
    import torch

    for name, weight in weights.items():
        both = torch.corrcoef(torch.stack([source[name].flatten().to(torch.float32), weight.flatten()]))
        if not both[0, 1] > (0.999 if bits > 6 else 0.9 if bits > 3 else 0.2):
            raise SystemExit(f"{name}: not the source's weights in {bits} bits (correlation {both[0, 1]:.3f})")


def save_plain(model, tensors, out):
    """OUT: the folder `model` with these tensors."""
    import safetensors.torch

    out.mkdir(parents=True)
    safetensors.torch.save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, out / "model.safetensors",
                                metadata={"format": "pt"})
    for path in model.iterdir():
        if path.name == "config.json" or path.name.startswith("tokenizer"):
            shutil.copy(path, out)


def linears_of(names):
    """Of the names of a model's tensors those that are quantized."""
    return [name for name in names if ".layers." in name and name.endswith("_proj.weight")]


def write_plain(options, weights):
    """OUT: the source's folder with `weights` (by tensor name, float32) in place of its own."""
    tensors = model_weights(options)
    for name, weight in weights.items():
        if tensors[name].shape != weight.shape:
            raise SystemExit(f"{name}: {tuple(weight.shape)} instead of {tuple(tensors[name].shape)}")
        tensors[name] = weight
    linears = linears_of(tensors)
    if sorted(linears) != sorted(weights):
        raise SystemExit("not the linears of all blocks were quantized: " + ", ".join(set(linears) ^ set(weights)))
    save_plain(options.model, tensors, options.out)


def unpack(packed, bits):
    """int32 words [n, columns], codes as a bit stream from the lowest bit on: codes [n · 32/bits, columns]."""
    import torch

    words = packed.to(torch.int64) & 0xFFFFFFFF
    stream = (words.unsqueeze(1) >> torch.arange(32).view(1, -1, 1)) & 1
    stream = stream.reshape(-1, bits, packed.shape[1])
    return (stream << torch.arange(bits).view(1, -1, 1)).sum(1)


def mend(codes, zeros, scales, source):
    """AutoRound 0.15.1 packs codes without a clamp: at 8 bits some are 256 or -1, which is 0 or 255 once it is packed, moves the
    weight by the whole range, and adds 1 to the next code of the four in a word, or takes it away. They are taken for 255 and
    0 here; how many there were."""
    import torch

    near, count, carried = source / scales + zeros, 0, 0
    for at in range(4):
        own = (codes[at::4] - carried) % 256
        own = own + 256.0 * ((own < 64) & (near[at::4] > 192)) - 256.0 * ((own > 192) & (near[at::4] < 64))
        carried = torch.floor((own + carried) / 256)
        codes[at::4] = own.clamp(0, 255)
        count += int(((own < 0) | (own > 255)).sum())
    return count


def grouping(model, options):
    """The settings of the layers that --group-size does not divide."""
    import torch

    layers = {}
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and ".layers." in name and options.group_size > 0:
            if module.in_features % options.group_size != 0:
                if options.group_fallback < 1 or module.in_features % options.group_fallback != 0:
                    raise SystemExit(f"{name}: rows of {module.in_features} in groups of {options.group_size}")
                layers[name] = {"group_size": options.group_fallback}
    return layers


def autoround(options, ids):
    """AutoRound as it exports itself: its packed codes, zero points and float16 scales, multiplied out. In its format
    auto_round 4 bits are packed as AWQ does; auto_round:gptqmodel holds the same numbers in one order at all widths."""
    import safetensors.torch
    import torch
    from auto_round import AutoRound
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(options.model)
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    batches = [{"input_ids": ids[at : at + options.batch]} for at in range(0, len(ids), options.batch)]
    start = time.monotonic()
    quantizer = AutoRound(model, tokenizer, bits=options.bits, group_size=options.group_size or -1, sym=False,
                          layer_config=grouping(model, options), dataset=batches, iters=options.iters, nsamples=len(ids),
                          seqlen=ids.shape[1], batch_size=options.batch, seed=options.seed, device_map="cpu")
    weights, source, wrapped = {}, model_weights(options), 0
    with tempfile.TemporaryDirectory(dir=options.out.parent) as folder:
        quantizer.quantize_and_save(folder, format="auto_round:gptqmodel")
        seconds = time.monotonic() - start
        packed = {}
        for path in pathlib.Path(folder).rglob("*.safetensors"):
            packed.update(safetensors.torch.load_file(path))
    for name in [name for name in packed if name.endswith(".qweight")]:
        prefix = name[: -len(".qweight")]
        codes = unpack(packed[name], options.bits).to(torch.float32)
        zeros = unpack(packed[prefix + ".qzeros"].T, options.bits).T.to(torch.float32)
        scales = packed[prefix + ".scales"].to(torch.float32)
        count = len(codes) // len(scales)
        if count not in (options.group_size, options.group_fallback) and len(scales) != 1:
            raise SystemExit(f"{prefix}: groups of {count}")
        zeros, scales = (array.repeat_interleave(count, 0) for array in (zeros, scales))
        if options.bits == 8:
            wrapped += mend(codes, zeros, scales, source[prefix + ".weight"].to(torch.float32).T)
        weights[prefix + ".weight"] = ((codes - zeros) * scales).T
    check_near(source, weights, options.bits)
    return seconds, weights, {"iters": options.iters, "batch": options.batch, "sequences": len(ids), "wrapped": wrapped}


def gptq(options, ids):
    """GPTQ as llmcompressor has it, with scales in float32, since the model is."""
    import torch
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
    from datasets import Dataset
    from llmcompressor import oneshot
    from llmcompressor.modifiers.gptq import GPTQModifier
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32)
    numbers = QuantizationArgs(num_bits=options.bits, type="int", symmetric=False, strategy="group",
                               group_size=options.group_size)
    recipe = GPTQModifier(ignore=["lm_head"],
                          config_groups={"group_0": QuantizationScheme(targets=["Linear"], weights=numbers)})
    data = Dataset.from_dict({"input_ids": ids.tolist(), "attention_mask": torch.ones_like(ids).tolist()})
    start = time.monotonic()
    oneshot(model=model, dataset=data, recipe=recipe, max_seq_length=ids.shape[1], num_calibration_samples=len(ids))
    seconds = time.monotonic() - start
    weights = {}
    for name, module in model.named_modules():
        if not hasattr(module, "weight_scale"):
            continue
        scale, zero = (array.to(torch.float32).repeat_interleave(options.group_size, 1)
                       for array in (module.weight_scale.data, module.weight_zero_point.data))
        weight = module.weight.data.to(torch.float32)
        codes = torch.round(weight / scale + zero)
        if (weight - (codes - zero) * scale).abs().max() > 1e-4 * weight.abs().max():
            raise SystemExit(f"{name}: its weights are not on its grid")
        if codes.max() - codes.min() > (1 << options.bits) - 1:
            raise SystemExit(f"{name}: more than {options.bits} bits")
        weights[name + ".weight"] = weight
    return seconds, weights, {}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("ids", "autoround", "gptq"))
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("source", type=pathlib.Path, help="calibration text, or token ids")
    parser.add_argument("out", type=pathlib.Path)
    for name, default in (("samples", 64), ("seq-len", 512), ("bits", 4), ("group-size", 64), ("group-fallback", 0),
                          ("iters", 64), ("batch", 4), ("threads", 2), ("seed", 0)):
        parser.add_argument("--" + name, type=int, default=default)
    options = parser.parse_args()
    if options.what == "ids":
        calibration_ids(options)
        return
    import torch

    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    ids = torch.from_numpy(numpy.load(options.source).astype(numpy.int64))
    package = {"autoround": "auto-round", "gptq": "llmcompressor"}[options.what]
    seconds, weights, settings = {"autoround": autoround, "gptq": gptq}[options.what](options, ids)
    shutil.rmtree(options.out, ignore_errors=True)
    write_plain(options, weights)
    print(json.dumps({"package": package, "version": importlib.metadata.version(package), "bits": options.bits,
                      "quantizer_seconds": seconds, **settings}))


if __name__ == "__main__":
    main()
