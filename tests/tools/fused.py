#!/usr/bin/env python3
"""fused.py make MODEL OUT: a Llama as a Phi-3, which computes the same of fused projections, q, k and v one below the other, and
gate and up.
fused.py compare MASTER FUSED: is FUSED, the master of such a Phi-3, MASTER with its tensors put together likewise? Learning
does not see which tensor a row is stored in, so every number has to be the same.
"""
import json
import os
import shutil
import struct
import sys

from checkpoint import check, read_json, read_tensors

FUSED = {"self_attn.qkv_proj": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
         "mlp.gate_up_proj": ("mlp.gate_proj", "mlp.up_proj")}


def fuse(tensors):
    """{name: (dtype, shape, bytes)}, rows of several tensors in one."""
    result, fused = {}, {part: (name, parts) for name, parts in FUSED.items() for part in parts}
    for name, tensor in tensors.items():
        layer = ".".join(name.split(".")[3:5])
        if layer not in fused:
            result[name] = tensor
            continue
        whole, parts = fused[layer]
        rows = [tensors[name.replace(layer, part)] for part in parts]
        result[name.replace(layer, whole)] = (tensor[0], [sum(shape[0] for _, shape, _ in rows), *tensor[1][1:]],
                                              b"".join(data for _, _, data in rows))
    return result


def make(model, out):
    tensors = fuse(read_tensors(model))
    os.mkdir(out)
    for name in os.listdir(model):
        if name.startswith(("tokenizer", "generation_config", "chat_template")):
            shutil.copyfile(os.path.join(model, name), os.path.join(out, name))
    config = {**read_json(model, "config.json"), "architectures": ["Phi3ForCausalLM"], "model_type": "phi3"}
    with open(os.path.join(out, "config.json"), "w", encoding="utf-8") as file:
        json.dump(config, file)
    header, at = {}, 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(os.path.join(out, "model.safetensors"), "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + b"".join(data for _, _, data in tensors.values()))


def compare(master, other):
    wanted, found = fuse(read_tensors(master)), read_tensors(other)
    check(wanted.keys() == found.keys(), "other tensors: %s" % sorted(wanted.keys() ^ found.keys())[:4])
    for name, tensor in wanted.items():
        check(found[name] == tensor, name + " differs")
    private = sum(name[-3:-1] == ".w" and "norm" in name for name in found)
    print("%d tensors are the same, %d of them a width's norms" % (len(found), private))


{"make": make, "compare": compare}[sys.argv[1]](*sys.argv[2:])
