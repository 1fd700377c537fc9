#!/usr/bin/env python3
"""widen-model.py MODEL OUT TIMES: a Llama of so many times the hidden size, heads and channels that computes the same.

For measuring what only a model's size changes: every number between layers is there TIMES times, and the pieces of a row that
read them add up to the source's row. They are drawn at random, as large as the weights of so wide a layer would be, so that
each errs in its own way when it is rounded. MODEL is one file of BF16 with tied embeddings (the demo model); OUT is in F32, so
that the sums are exact enough: `matquant eval OUT --reference MODEL` shows a KL of 0. Needs numpy.
"""
import json
import os
import shutil
import struct
import sys

import numpy as np

SIZES = ("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads")


def read(path):
    """{name: array}."""
    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header, data = json.loads(file.read(length)), file.read()
    tensors = {}
    for name, entry in header.items():
        if name != "__metadata__":
            begin, end = entry["data_offsets"]
            words = np.frombuffer(data[begin:end], "<u2").astype(np.uint32) << 16
            tensors[name] = words.view(np.float32).reshape(entry["shape"])
    return tensors


def write(path, tensors):
    header, end = {}, 0
    for name, values in tensors.items():
        header[name] = {"dtype": "F32", "shape": list(values.shape), "data_offsets": [end, end + values.nbytes]}
        end += values.nbytes
    text = json.dumps(header).encode()
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for values in tensors.values():
            file.write(values.tobytes())


def widen(name, values, times, source):
    if values.ndim == 1:
        widened = np.tile(values, times)
        return widened / np.float32(times) if name == "model.norm.weight" else widened  # logits are sums of `times`
    if name == "model.embed_tokens.weight":
        return np.tile(values, (1, times))
    parts = source.normal(0.0, values.std() / times ** 0.5, (times, times) + values.shape)
    parts += values / times - parts.mean(axis=1, keepdims=True)  # [row's copy, input's copy, out, in]
    return np.ascontiguousarray(parts.transpose(0, 2, 1, 3).reshape(times * values.shape[0], -1), np.float32)


def main():
    model, out, times = sys.argv[1], sys.argv[2], int(sys.argv[3])
    with open(os.path.join(model, "config.json"), encoding="utf-8") as file:
        config = json.load(file)
    if config["architectures"] != ["LlamaForCausalLM"] or not config["tie_word_embeddings"]:
        sys.exit("widen-model.py: no Llama with tied embeddings")
    config.update({key: times * config[key] for key in SIZES}, dtype="float32")
    source = np.random.default_rng(1)
    os.mkdir(out)
    tensors = read(os.path.join(model, "model.safetensors"))
    write(os.path.join(out, "model.safetensors"),
          {name: widen(name, values, times, source).astype(np.float32) for name, values in tensors.items()})
    with open(os.path.join(out, "config.json"), "w", encoding="utf-8") as file:
        json.dump(config, file, indent=2)
    for name in os.listdir(model):
        if name.startswith(("tokenizer", "generation_config", "chat_template")):
            shutil.copyfile(os.path.join(model, name), os.path.join(out, name))


main()
