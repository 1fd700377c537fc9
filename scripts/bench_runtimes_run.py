#!/usr/bin/env python3
"""What scripts/bench-runtimes.sh runs in the readers' environment (requirements-readers.txt).

    bench_runtimes_run.py permute MODEL OUT         the same model with its channels in another order
    bench_runtimes_run.py source MODEL FILE.gguf    puts the model's own numbers into an unquantized GGUF of a slice of it
    bench_runtimes_run.py imatrix MODEL IDS.npy OUT.npz
    bench_runtimes_run.py llama FILE.gguf OUT.gguf --type Q4_K_M [--imatrix FILE.npz] [--embeddings default]
    bench_runtimes_run.py plain MODEL FILE.gguf OUT what a GGUF holds as a plain folder in float32
    bench_runtimes_run.py mlx MODEL OUT --bits 4 [--method gptq|dwq --ids IDS.npy]
    bench_runtimes_run.py sizes MODEL FOLDER        of a folder in MLX's format

All but the first three print a JSON object. llama.cpp and mlx-lm quantize with their own functions, by their own defaults but
for what is said at each; embeddings (which are the head, too) stay in bfloat16 as matquant's do, unless --embeddings says
otherwise.
"""
import argparse
import collections
import copy
import ctypes
import ctypes.util
import importlib.metadata
import json
import os
import pathlib
import sys

import numpy

from bench_peers_run import linears_of, model_weights, save_plain

SEED = 0


# --- the source ---------------------------------------------------------------------------------------------------


def orders(config, rng):
    """A function from a tensor's name to the orders (rows, columns) that it gets, either of which may be None: of the hidden
    channels the same everywhere; within each block of the intermediate ones, and of those of each head's values."""
    import torch

    def draw(count):
        return torch.from_numpy(rng.permutation(count))

    hidden, heads = draw(config["hidden_size"]), config["num_attention_heads"]
    groups = config["num_key_value_heads"]
    size = config.get("head_dim") or config["hidden_size"] // heads
    of_blocks = {}

    def of_block(block):
        if block not in of_blocks:
            values = [draw(size) for _ in range(groups)]
            of_blocks[block] = {
                "intermediate": draw(config["intermediate_size"]),
                "v": torch.cat([group * size + order for group, order in enumerate(values)]),
                "o": torch.cat([head * size + values[head // (heads // groups)] for head in range(heads)]),
            }
        return of_blocks[block]

    def of_tensor(name):
        parts = name.split(".")
        kind = parts[-2]
        if ".layers." not in name:
            return (hidden, None) if kind == "norm" else (None, hidden)
        block = of_block(parts[2])
        return {"q_proj": (None, hidden), "k_proj": (None, hidden), "v_proj": (block["v"], hidden),
                "o_proj": (hidden, block["o"]), "gate_proj": (block["intermediate"], hidden),
                "up_proj": (block["intermediate"], hidden), "down_proj": (hidden, block["intermediate"]),
                "q_norm": (None, None), "k_norm": (None, None)}.get(kind, (hidden, None))

    return of_tensor


def permute(options):
    """Computes the same. A source that was multiplied out of a quantized file is on that file's grid, and a quantizer with the
    same blocks finds it again: not so when other columns stand together."""
    config = json.loads((options.model / "config.json").read_text())
    of_tensor, tensors = orders(config, numpy.random.default_rng(SEED)), model_weights(options)
    for name in sorted(tensors):
        rows, columns = of_tensor(name)
        if rows is not None:
            tensors[name] = tensors[name][rows]
        if columns is not None and tensors[name].dim() == 2:
            tensors[name] = tensors[name][:, columns]
    save_plain(options.model, tensors, options.out)


def interleave_rows(w, n_heads):
    """What gguf_to_hf.unpermute_rows undoes."""
    rows, cols = w.shape
    return w.reshape(n_heads, 2, -1, cols).swapaxes(1, 2).reshape(rows, cols)


def source(options):
    import gguf
    import gguf_to_hf
    import torch

    reader = gguf.GGUFReader(options.out, "r+")
    meta = gguf_to_hf.Metadata(reader)
    arch = meta.need("general.architecture")
    heads, tensors = gguf_to_hf.heads_of(meta, arch), model_weights(options)
    for tensor in reader.tensors:
        values = tensors.pop(gguf_to_hf.hf_name(tensor.name, arch))
        if tensor.tensor_type.name not in ("BF16", "F32") or values.dtype != torch.bfloat16:
            raise SystemExit(f"{tensor.name}: {tensor.tensor_type.name} out of {values.dtype}")
        values = values.float().numpy()
        kind = gguf_to_hf.kind_of(tensor.name)
        if kind in heads:
            values = interleave_rows(values, heads[kind])
        if arch == "gemma3" and tensor.name.endswith("_norm.weight"):
            values = values + numpy.float32(1)
        if tensor.tensor_type.name == "BF16":
            values = gguf_to_hf.to_bfloat16(values).astype("<u2").view(numpy.uint8)
        tensor.data[...] = values.reshape(tensor.data.shape)
    reader.data.flush()
    if tensors:
        raise SystemExit(f"{options.out} lacks {', '.join(tensors)}")


def imatrix(options):
    """The mean square of each column of each linear's inputs, as llama-imatrix counts them, by llama.cpp's names."""
    import torch
    from readers_files import GGUF_NAMES
    from readers_programs import transformers

    model = transformers(options.model).model
    ids = torch.from_numpy(numpy.load(options.ids).astype(numpy.int64))
    names = {module: name for name, module in GGUF_NAMES.items()}
    sums, hooks = {}, []

    def hook(name):
        def add(_, inputs):
            sums[name] = sums.get(name, 0) + inputs[0].double().square().sum((0, 1))
        return add

    for block, layer in enumerate(model.model.layers):
        for module, name in names.items():
            linear = layer.get_submodule(module)
            hooks.append(linear.register_forward_pre_hook(hook(f"blk.{block}.{name}.weight")))
    with torch.no_grad():
        for sequence in ids:
            model.model(sequence[None])
    numpy.savez(options.out, **{name: (total / ids.numel()).float().numpy() for name, total in sums.items()})


# --- llama.cpp ----------------------------------------------------------------------------------------------------


def llama(options):
    import gguf
    import llama_cpp

    params = llama_cpp.llama_model_quantize_default_params()
    params.nthread = options.threads
    params.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{options.type}")
    if options.embeddings == "bf16":
        params.token_embedding_type = params.output_tensor_type = gguf.GGMLQuantizationType.BF16
    if options.imatrix:
        kept = [(name.encode(), numpy.ascontiguousarray(values)) for name, values in numpy.load(options.imatrix).items()]
        array = (llama_cpp.llama_model_imatrix_data * (len(kept) + 1))()  # ends with a name that is NULL
        for entry, (name, values) in zip(array, kept):
            entry.name, entry.size = name, values.size
            entry.data = values.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        params.imatrix = array
    status = llama_cpp.llama_model_quantize(os.fsencode(options.model), os.fsencode(options.out), ctypes.byref(params))
    if status != 0:
        raise SystemExit(f"llama_model_quantize: {status}")
    say({"package": "llama-cpp-python", "version": importlib.metadata.version("llama-cpp-python")})


def plain(options):
    import gguf
    import gguf_to_hf
    import torch

    reader = gguf.GGUFReader(options.file)
    meta = gguf_to_hf.Metadata(reader)
    arch = meta.need("general.architecture")
    tensors = {name: torch.from_numpy(values) for name, values in gguf_to_hf.plain_tensors(reader, meta, arch)}
    source_of = model_weights(options)
    if {name: t.shape for name, t in tensors.items()} != {name: t.shape for name, t in source_of.items()}:
        raise SystemExit(f"{options.file}: not the tensors of {options.model}")
    save_plain(options.model, tensors, options.out)
    linears = set(linears_of(tensors))
    weights, stored = collections.Counter(), 0
    for tensor in reader.tensors:
        name = gguf_to_hf.hf_name(tensor.name, arch)
        if name in linears:
            weights[tensor.tensor_type.name] += int(tensor.n_elements)
            stored += int(tensor.n_bytes)
        elif name.endswith("embed_tokens.weight"):
            embeddings = tensor.tensor_type.name
    total = sum(weights.values())
    say({"bytes": options.file.stat().st_size, "bits_per_weight": 8 * stored / total, "embeddings": embeddings,
         "types": {kind: count / total for kind, count in weights.most_common()},
         "same": all(torch.equal(tensors[name], source_of[name].float()) for name in tensors)})


# --- MLX ----------------------------------------------------------------------------------------------------------


def with_openblas():
    """mlx-cpu comes with the reference BLAS, 3 GFLOP/s: starts this program again with OpenBLAS in its place."""
    library = ctypes.util.find_library("openblas")
    if library and "openblas" not in os.environ.get("LD_PRELOAD", ""):
        os.environ["LD_PRELOAD"] = library
        os.execv(sys.executable, [sys.executable, *sys.argv])


def in_blocks(path, _):
    return ".layers." in f".{path}."


def multiply_out():
    """mlx's product with a quantized matrix is slow on the CPU, 2 GFLOP/s: the same out of a matrix that is dequantized."""
    import mlx.core as mx
    import mlx.nn as nn

    def call(self, x):
        weight = mx.dequantize(self.weight, self.scales, self.biases, group_size=self.group_size, bits=self.bits)
        return x @ weight.T + (self.bias if "bias" in self else 0)
    nn.QuantizedLinear.__call__ = call


def learned(options, model, config):
    """mlx-lm's own functions on our tokens; in float32, in which the CPU is fast. The model is changed."""
    import mlx.core as mx
    from mlx.utils import tree_flatten, tree_unflatten
    from mlx_lm.utils import quantize_model
    import mlx.nn as nn

    ids = numpy.load(options.ids)
    mx.random.seed(SEED)
    model.set_dtype(mx.float32)
    if options.method == "gptq":
        from mlx_lm.quant.gptq import gptq_quantize

        modules = tree_flatten(model.leaf_modules(), is_leaf=nn.Module.is_module)
        others = [(path, module) for path, module in modules if not in_blocks(path, module)]
        gptq_quantize(model, mx.array(ids), options.bits, options.group_size, options.bits, options.group_size)
        model.update_modules(tree_unflatten(others))  # what it quantized plainly: the embeddings
        return {"group_size": options.group_size, "bits": options.bits}, {}
    import mlx.optimizers as optimizers
    from mlx_lm.quant.dwq import dwq_quantize

    multiply_out()
    teacher = copy.deepcopy(model)
    _, quantized = quantize_model(model, config, options.group_size, options.bits, quant_predicate=in_blocks)
    for path, module in tree_flatten(model.leaf_modules(), is_leaf=nn.Module.is_module):
        if hasattr(module, "to_quantized") and not in_blocks(path, module):
            module.freeze()  # dwq learns what is not quantized, too: the norms, but here not the embeddings
    train = [(sequence.tolist(), 0) for sequence in ids] * options.epochs
    dwq_quantize(model, lambda batch, index, split: teacher(batch), optimizers.Adam(learning_rate=options.rate,
                                                                                  bias_correction=True),
                 train, train[:options.batch], options.batch, ids.shape[1] + 1, SEED, dtype=mx.float32)
    return quantized["quantization"], {"rate": options.rate, "epochs": options.epochs, "batch": options.batch}


def mlx(options):
    with_openblas()
    import mlx.core as mx
    from mlx_lm.convert import convert
    from mlx_lm.utils import load, save

    settings = {}
    if options.method == "plain":
        convert(str(options.model), str(options.out), quantize=True, q_group_size=options.group_size, q_bits=options.bits,
                quant_predicate=in_blocks)
    else:
        model, tokenizer, config = load(str(options.model), return_config=True)
        quantization, settings = learned(options, model, copy.deepcopy(config))
        model.set_dtype(mx.bfloat16)
        config["quantization"] = config["quantization_config"] = quantization
        save(options.out, str(options.model), model, tokenizer, config)
    say({"package": "mlx-lm", "version": importlib.metadata.version("mlx-lm"), **settings, **sizes_of(options, options.out)})


def sizes_of(options, folder):
    from readers_files import folder_tensors

    tensors = folder_tensors(folder)
    linears = {name.removesuffix(".weight") for name in linears_of(model_weights(options))}
    stored = sum(tensor.nbytes for name, tensor in tensors.items() if name.rpartition(".")[0] in linears)
    embeddings = tensors["model.embed_tokens.weight"].dtype
    total = sum(tensor.numel() for name, tensor in model_weights(options).items() if name.removesuffix(".weight") in linears)
    return {"bytes": sum(path.stat().st_size for path in folder.glob("*.safetensors")), "bits_per_weight": 8 * stored / total,
            "embeddings": str(embeddings).removeprefix("torch.")}


def sizes(options):
    say(sizes_of(options, options.out))


def say(report):
    print(json.dumps(report))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command, words in ((permute, "model out"), (source, "model out"), (imatrix, "model ids out"), (llama, "model out"),
                           (plain, "model file out"), (mlx, "model out"), (sizes, "model out")):
        one = commands.add_parser(command.__name__)
        one.set_defaults(command=command)
        for word in words.split():
            one.add_argument(word, type=pathlib.Path)
        one.add_argument("--threads", type=int, default=2)
        if command is llama:
            one.add_argument("--type", required=True)
            one.add_argument("--imatrix", type=pathlib.Path)
            one.add_argument("--embeddings", choices=("bf16", "default"), default="bf16")
        if command is mlx:
            one.add_argument("--method", choices=("plain", "gptq", "dwq"), default="plain")
            one.add_argument("--ids", type=pathlib.Path)
            for name, default in (("bits", 4), ("group-size", 64), ("epochs", 1), ("batch", 4)):
                one.add_argument("--" + name, type=int, default=default)
            one.add_argument("--rate", type=float, default=1e-6)
    options = parser.parse_args()
    if options.command is imatrix:
        import torch

        torch.set_num_threads(options.threads)
    options.command(options)


if __name__ == "__main__":
    main()
