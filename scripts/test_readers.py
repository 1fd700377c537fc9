#!/usr/bin/env python3
"""Does the program that a slice was written for compute what matquant computes? Called by test-readers.sh.

    test_readers.py READER MASTER --build FOLDER --work FOLDER --text FILE [--bits R] [--tokens N] [--windows N]

READER is mlx, gguf, compressed-tensors, gptq or safetensors. The slice is cut, loaded by its reader, and compared with
matquant's logits (float32) of the numbers that the file holds. Where a format cannot hold the slice exactly, these are read out of
the file here, so that the comparison is of arithmetic alone; what the format cost is what `slice` reports. Compared are

  logits      root of the mean squared difference, divided by that of the logits about their mean
  perplexity  of both, over the same windows of text
  greedy      32 tokens that the reader continues a text with: matquant's first choice at each place

Bounds, and why. transformers runs in float32 here: what is left is the order of sums, 1e-4. gptqmodel's torch kernel has
float16 and bfloat16 only, and runs in the first: 11 bits a number, 1e-2. mlx computes in the model's bfloat16: 8 bits. llama.cpp
rounds activations to 8 bits a block of 32 (Q8_0, Q8_1, Q8_K) before each product with a quantized matrix and to bf16 before one
with a bf16 matrix; a model with large activations in few channels feels that most: SmolLM2's perplexity rises by about 1 %
in Q4_1, Q5_1 and Q8_0 alike, and by a quarter of that when its matrices stay bf16. A greedy token may differ only
where matquant's two best logits are closer than the logits' difference there.
"""
import argparse
import json
import math
import os
import pathlib
import subprocess
import sys

import numpy as np

BOUNDS = {"safetensors": 1e-4, "compressed-tensors": 1e-4, "gptq": 1e-2, "mlx": 5e-2, "gguf": 1e-1}
PERPLEXITY = {"gguf": 2e-2}  # the others: 5e-3
GREEDY = 32


# --- what a file holds, as plain weights ---------------------------------------------------------

def unpack(words, count, width):
    """[..., words] of uint32 to [..., count] codes: a bit stream, least significant bits first."""
    bits = np.unpackbits(np.ascontiguousarray(words).view(np.uint8), axis=-1, bitorder="little")
    bits = bits[..., :count * width].reshape(*words.shape[:-1], count, width)
    return (bits << np.arange(width, dtype=np.uint8)).sum(-1).astype(np.float32)


def gptq_weights(tensors, prefix, width):
    packed, zeros = tensors[prefix + ".qweight"].view(np.uint32), tensors[prefix + ".qzeros"].view(np.uint32)
    index, scales = tensors[prefix + ".g_idx"], tensors[prefix + ".scales"].astype(np.float32)
    codes = unpack(packed.T.copy(), len(index), width)
    return scales.T[:, index] * (codes - unpack(zeros, scales.shape[1], width).T[:, index])


def compressed_weights(tensors, prefix, width):
    packed, scales = tensors[prefix + ".weight_packed"].view(np.uint32), tensors[prefix + ".weight_scale"]
    out, columns = tensors[prefix + ".weight_shape"]
    codes = unpack(packed, columns, width)
    zeros = unpack(tensors[prefix + ".weight_zero_point"].view(np.uint32).T.copy(), out, width).T
    size = columns // scales.shape[1]
    return np.repeat(scales, size, 1) * (codes - np.repeat(zeros, size, 1))


def folder_weights(folder, width, read, marker):
    """{P: weights} of the packed layers of a folder; bf16 scales need torch to be read."""
    from safetensors.torch import load_file
    tensors = {}
    for path in sorted(pathlib.Path(folder).glob("*.safetensors")):
        for name, tensor in load_file(path).items():
            tensors[name] = tensor.float().numpy() if tensor.is_floating_point() else tensor.numpy()
    return {name[:-len(marker)]: read(tensors, name[:-len(marker)], width) for name in tensors if name.endswith(marker)}


def gguf_weights(path, config):
    """{P: weights} of the matrices of a GGUF file's blocks, rows in Hugging Face's order."""
    from gguf import GGUFReader
    from gguf.quants import dequantize
    names = {"attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
             "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
             "ffn_down": "mlp.down_proj"}
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    result = {}
    for tensor in GGUFReader(path).tensors:
        parts = tensor.name.split(".")
        if parts[0] == "blk" and parts[2] in names and parts[3] == "weight":
            weights = dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
            if config["model_type"] == "llama" and parts[2] in heads:
                weights = weights.reshape(heads[parts[2]], -1, 2, weights.shape[1]).swapaxes(1, 2)
                weights = weights.reshape(-1, weights.shape[3])
            result["model.layers.%s.%s" % (parts[1], names[parts[2]])] = weights
    return result


# --- the readers: each gives logits(ids) -> float32 [length, vocab] ------------------------------

def transformers_logits(folder, reader):
    import torch
    if reader == "gptq":
        from gptqmodel import BACKEND, GPTQModel
        model = GPTQModel.load(folder, backend=BACKEND.TORCH, device="cpu", dtype=torch.float16).model
    else:
        from transformers import AutoModelForCausalLM
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)

    def logits(ids):
        with torch.no_grad():
            return model(torch.tensor([ids])).logits[0].float().numpy()
    return logits


def mlx_logits(folder):
    import mlx.core as mx
    import mlx_lm
    model, _ = mlx_lm.load(folder)
    return lambda ids: np.array(model(mx.array([ids]))[0].astype(mx.float32))


def llama_logits(path, length):
    import llama_cpp
    model = llama_cpp.Llama(path, logits_all=True, n_ctx=length, n_batch=length, verbose=False)

    def logits(ids):
        model.reset()
        model.eval(list(ids))
        return np.array(model.scores[:len(ids)], dtype=np.float32)
    logits.model = model
    return logits


# --- comparing ------------------------------------------------------------------------------------

class Matquant:
    def __init__(self, build, folder, bits, work):
        self.program, self.folder, self.bits, self.work = build / "tests/tools/logits", folder, bits, work

    def __call__(self, ids):
        given, got = self.work / "ids", self.work / "logits"
        given.write_bytes(np.array(ids, dtype=np.int32).tobytes())
        subprocess.run([self.program, self.folder, given, got] + self.bits, check=True, stderr=subprocess.DEVNULL)
        return np.fromfile(got, dtype=np.float32).reshape(len(ids), -1)


def nll(logits, ids):
    logits = logits[:-1].astype(np.float64)
    top = logits.max(1)
    return np.log(np.exp(logits - top[:, None]).sum(1)) + top - logits[np.arange(len(logits)), ids[1:]]


def continue_text(theirs, ids):
    ids = list(ids)
    for _ in range(GREEDY):
        ids.append(int(theirs(ids)[-1].argmax()))
    return ids


def compare_greedy(theirs, ours, prompt):
    """How many of the reader's tokens are matquant's, and whether the first other one is a near tie."""
    ids = continue_text(theirs, prompt)
    mine = ours(ids)[len(prompt) - 1:-1]
    chosen = np.array(ids[len(prompt):])
    same = mine.argmax(1) == chosen
    if same.all():
        return GREEDY, True
    at = int(same.argmin())
    difference = np.abs(theirs(ids[:len(prompt) + at])[-1] - mine[at]).max()
    return at, bool(mine[at].max() - mine[at][chosen[at]] <= 2 * difference)


def compare(reader, theirs, ours, windows):
    squares = power = 0.0
    nlls = ([], [])
    for ids in windows:
        a, b = theirs(ids), ours(ids)
        squares += float(((a - b) ** 2).sum())
        power += float(((b - b.mean(1, keepdims=True)) ** 2).sum())
        nlls[0].append(nll(a, ids))
        nlls[1].append(nll(b, ids))
    error = math.sqrt(squares / power)
    perplexity = [math.exp(np.concatenate(part).mean()) for part in nlls]
    ratio = perplexity[0] / perplexity[1] - 1
    same, tie = compare_greedy(theirs, ours, windows[0][:16])
    good = error <= BOUNDS[reader] and abs(ratio) <= PERPLEXITY.get(reader, 5e-3) and tie
    print("logits %.2e (bound %.0e)  perplexity %.4f, matquant %.4f (%+.3f %%)  greedy %d of %d%s  %s" %
          (error, BOUNDS[reader], *perplexity, 100 * ratio, same, GREEDY,
           "" if same == GREEDY else ", then a near tie" if tie else ", then another choice", "ok" if good else "FAILED"))
    return good


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("reader", choices=BOUNDS)
    parser.add_argument("master")
    parser.add_argument("--build", type=pathlib.Path, required=True)
    parser.add_argument("--work", type=pathlib.Path, required=True)
    parser.add_argument("--text", type=pathlib.Path, required=True)
    parser.add_argument("--bits", default="4")
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--windows", type=int, default=8)
    options = parser.parse_args()
    work, bits = options.work, options.bits

    def cut(form, output, *more):
        subprocess.run([options.build / "matquant", "slice", options.master, "-o", output, "--bits", bits, "--format",
                        form, "--force", "--json", "-q", *more], check=True, stdout=open(work / "report.json", "w"))
        return json.load(open(work / "report.json"))

    output = str(work / ("slice.gguf" if options.reader == "gguf" else "slice"))
    more = ["--dtype", "f32"] if options.reader == "safetensors" else []
    report = cut(options.reader, output, *more)
    ours = Matquant(options.build, options.master, [bits], work)
    if report["relative_error"] > 0:
        config = json.load(open(os.path.join(options.master, "config.json")))
        cut("safetensors", str(work / "plain"), "--dtype", "f32")
        weights = (gguf_weights(output, config) if options.reader == "gguf" else
                   folder_weights(output, int(bits), gptq_weights, ".qweight") if options.reader == "gptq" else
                   folder_weights(output, int(bits), compressed_weights, ".weight_packed"))
        from safetensors.numpy import load_file, save_file
        tensors = load_file(work / "plain/model.safetensors")
        for prefix, values in weights.items():
            tensors[prefix + ".weight"] = np.ascontiguousarray(values, dtype=np.float32)
        save_file(tensors, work / "plain/model.safetensors", metadata={"format": "pt"})
        ours = Matquant(options.build, str(work / "plain"), [], work)

    from tokenizers import Tokenizer
    text = options.text.read_text(errors="replace")[:20 * options.tokens * options.windows]
    ids = Tokenizer.from_file(os.path.join(options.master, "tokenizer.json")).encode(text).ids
    windows = [ids[i * options.tokens:(i + 1) * options.tokens] for i in range(options.windows)]
    windows = [window for window in windows if len(window) == options.tokens]
    theirs = (mlx_logits(output) if options.reader == "mlx" else
              llama_logits(output, max(options.tokens, 64)) if options.reader == "gguf" else
              transformers_logits(output, options.reader))
    print("%-18s int%s  cost %.2e  " % (options.reader, bits, report["relative_error"]), end="")
    good = compare(options.reader, theirs, ours, windows)
    if options.reader == "gguf":  # the vocabulary came along: the same ids from the same text
        part = text[:4000]
        if theirs.model.tokenize(part.encode(), add_bos=True, special=True) != Tokenizer.from_file(
                os.path.join(options.master, "tokenizer.json")).encode(part).ids:
            print("llama.cpp makes other tokens of the text")
            good = False
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
