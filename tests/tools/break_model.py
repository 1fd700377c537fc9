#!/usr/bin/env python3
"""break_model.py SOURCE TARGET DEFECT

Copies the checkpoint folder SOURCE to TARGET with one defect, for the tests of bad input. SOURCE has one
model.safetensors; tensors that a defect is about are found by the end of their name. `break_model.py --list` prints
the defects. Needs the standard library only.
"""
import json
import math
import os
import random
import shutil
import struct
import sys

WEIGHTS = "model.safetensors"
LINEAR = "layers.1.mlp.up_proj."  # the layer that defects of a tensor are about


class Checkpoint:
    """model.safetensors as a header that can be changed and the bytes behind it."""

    def __init__(self, folder):
        self.folder = folder
        with open(os.path.join(folder, WEIGHTS), "rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            self.header = json.loads(file.read(length))
            self.data = bytearray(file.read())

    def name(self, end):
        return next(name for name in self.header if name.endswith(end))

    def tensor(self, end):
        return self.header[self.name(end)]

    def save(self, raw=None, length=None):
        """Writes the file; raw: other text for the header, length: another number for its length."""
        text = json.dumps(self.header).encode() if raw is None else raw
        with open(os.path.join(self.folder, WEIGHTS), "wb") as file:
            file.write(struct.pack("<Q", len(text) if length is None else length))
            file.write(text)
            file.write(self.data)

    def put(self, end, index, value):
        """Element number index of a tensor becomes value (the type is the tensor's)."""
        tensor = self.tensor(end)
        dtype = tensor["dtype"]
        size = {"F32": 4, "BF16": 2, "F16": 2, "U8": 1}[dtype]
        if dtype == "BF16":
            raw = struct.pack("<f", value)[2:]
        else:
            raw = struct.pack({"F32": "<f", "F16": "<e", "U8": "B"}[dtype], value)
        at = tensor["data_offsets"][0] + index * size
        self.data[at : at + size] = raw

    def remove(self, end):
        """Takes a tensor out, its bytes too."""
        begin, past = self.header.pop(self.name(end))["data_offsets"]
        del self.data[begin:past]
        for name, tensor in self.header.items():
            if name != "__metadata__" and tensor["data_offsets"][0] >= past:
                tensor["data_offsets"] = [x - (past - begin) for x in tensor["data_offsets"]]


def rewrite(folder, name, change):
    path = os.path.join(folder, name)
    with open(path, encoding="utf-8") as file:
        value = json.load(file)
    change(value)
    with open(path, "w", encoding="utf-8") as file:
        json.dump(value, file, indent=2)


def write(folder, name, data):
    with open(os.path.join(folder, name), "wb") as file:
        file.write(data)


def config(**fields):
    """A defect of config.json: these fields have these values."""
    return lambda folder: rewrite(folder, "config.json", lambda value: value.update(fields))


def shorten(folder, name, keep):
    """Keeps a share of the file's bytes."""
    path = os.path.join(folder, name)
    os.truncate(path, int(os.path.getsize(path) * keep))


def header(change):
    """A defect of the header's JSON."""

    def apply(folder):
        checkpoint = Checkpoint(folder)
        change(checkpoint)
        checkpoint.save()

    return apply


def set_offsets(end, move):
    def change(checkpoint):
        tensor = checkpoint.tensor(end)
        tensor["data_offsets"] = move(*tensor["data_offsets"], len(checkpoint.data))

    return header(change)


def set_field(end, field, value):
    return header(lambda checkpoint: checkpoint.tensor(end).update({field: value}))


def put(end, index, value):
    return header(lambda checkpoint: checkpoint.put(end, index, value))


def random_numbers(count):
    """Finite BF16 numbers: an exponent's second bit is 0."""
    data = bytearray(random.Random(count).randbytes(2 * count))
    data[1::2] = data[1::2].translate(bytes(byte & 0xbf for byte in range(256)))
    return bytes(data)


def add(*names, shape=(2,)):
    """Tensors of these names and that shape."""
    def change(checkpoint):
        for name in names:
            at, data = len(checkpoint.data), random_numbers(math.prod(shape))
            checkpoint.header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [at, at + len(data)]}
            checkpoint.data.extend(data)

    return header(change)


def rename(end, name_end):
    def change(checkpoint):
        name = checkpoint.name(end)
        checkpoint.header[name[: -len(end)] + name_end] = checkpoint.header.pop(name)

    return header(change)


def duplicate(folder):
    checkpoint = Checkpoint(folder)
    text = json.dumps(checkpoint.header)
    name = checkpoint.name(LINEAR + "weight")
    checkpoint.save(raw=(text[:-1] + ", " + json.dumps(name) + ": " + json.dumps(checkpoint.header[name]) + "}").encode())


def overlap(checkpoint):
    """The tensor lies on the one before it, and the bytes that nothing covers any more are gone."""
    tensors = sorted((t["data_offsets"], n) for n, t in checkpoint.header.items() if n != "__metadata__")
    (begin, past), last = tensors[-1]
    size = past - begin
    checkpoint.header[last]["data_offsets"] = [begin - size // 2, past - size // 2]
    del checkpoint.data[len(checkpoint.data) - size // 2 :]


SHARD = "model-00001-of-00001.safetensors"
INDEX = "model.safetensors.index.json"


def index_of(weight_map):
    """One shard and an index that says this; None: the truth."""

    def apply(folder):
        names = [name for name in Checkpoint(folder).header if name != "__metadata__"]
        os.rename(os.path.join(folder, WEIGHTS), os.path.join(folder, SHARD))
        index = {"metadata": {}, "weight_map": dict.fromkeys(names, SHARD) if weight_map is None else weight_map}
        write(folder, INDEX, json.dumps(index).encode())

    return apply


def both(*defects):
    def apply(folder):
        for defect in defects:
            defect(folder)

    return apply


def break_length(number):
    def apply(folder):
        checkpoint = Checkpoint(folder)
        checkpoint.save(length=number)

    return apply


def raw_header(text):
    return lambda folder: Checkpoint(folder).save(raw=text)


def pointer(name):
    """What Git leaves in a file's place where it was not told to fetch large ones."""
    text = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n"
    return lambda folder: write(folder, name, text)


def rename_all(change):
    """A defect of the tensors' names."""

    def apply(checkpoint):
        checkpoint.header = {change(name): tensor for name, tensor in checkpoint.header.items()}

    return header(apply)


def change_index(change):
    """A shard, and an index that says nearly the truth."""
    return both(index_of(None), lambda folder: rewrite(folder, INDEX, lambda index: change(index["weight_map"])))


def untie(folder):
    """The head is not in the file, though it is not the embeddings."""
    rewrite(folder, "config.json", lambda value: value.update(tie_word_embeddings=False))
    if "lm_head.weight" in Checkpoint(folder).header:
        header(lambda checkpoint: checkpoint.remove("lm_head.weight"))(folder)


def remove_file(name):
    return lambda folder: os.remove(os.path.join(folder, name))


def flip_byte(end):
    def change(checkpoint):
        at = checkpoint.tensor(end)["data_offsets"][0]
        checkpoint.data[at] ^= 1

    return header(change)


def quantization(**fields):
    """A defect of a master's quantization_config."""
    return lambda folder: rewrite(folder, "config.json", lambda c: c["quantization_config"].update(fields))


WEIGHT = LINEAR + "weight"
DEFECTS = {
    # files
    "none": lambda folder: None,
    "no-config": remove_file("config.json"),
    "no-weights": remove_file(WEIGHTS),
    "no-tokenizer": remove_file("tokenizer.json"),
    "empty-weights": lambda folder: write(folder, WEIGHTS, b""),
    "truncated": lambda folder: shorten(folder, WEIGHTS, 0.7),
    "truncated-header": lambda folder: os.truncate(os.path.join(folder, WEIGHTS), 100),
    "lfs-weights": pointer(WEIGHTS),
    "lfs-shard": both(index_of(None), pointer(SHARD)),
    "lfs-tokenizer": pointer("tokenizer.json"),
    "lfs-template": pointer("chat_template.jinja"),
    "old-tokenizer": lambda folder: os.rename(os.path.join(folder, "tokenizer.json"), os.path.join(folder, "tokenizer.model")),
    "adapter": lambda folder: os.rename(os.path.join(folder, "config.json"), os.path.join(folder, "adapter_config.json")),
    "config-not-json": lambda folder: shorten(folder, "config.json", 0.5),
    "tokenizer-not-json": lambda folder: shorten(folder, "tokenizer.json", 0.5),
    # the header of model.safetensors
    "length-past-end": break_length(1 << 24),
    "length-huge": break_length((1 << 64) - 1),
    "header-not-json": raw_header(b'{"a": [1, 2'),
    "header-not-object": raw_header(b"[1, 2, 3]"),
    "header-not-utf8": raw_header(b'{"\xff": {}}'),
    "duplicate-name": duplicate,
    "offsets-past-end": set_offsets(WEIGHT, lambda b, e, n: [b, n + 2]),
    "offsets-reversed": set_offsets(WEIGHT, lambda b, e, n: [e, b]),
    "offsets-negative": set_offsets(WEIGHT, lambda b, e, n: [-2, e]),
    "offsets-shift": set_offsets(WEIGHT, lambda b, e, n: [b + 2, e]),
    "overlap": header(overlap),
    "shape-lies": header(lambda c: c.tensor(WEIGHT)["shape"].append(2)),
    "shape-transposed": header(lambda c: c.tensor(WEIGHT)["shape"].reverse()),
    "shape-huge": set_field(WEIGHT, "shape", [1 << 40, 1 << 40]),
    "shape-negative": set_field(WEIGHT, "shape", [-1, 2]),
    "unknown-dtype": set_field(WEIGHT, "dtype", "F17"),
    "gap": header(lambda c: c.data.extend(b"\0\0\0\0")),
    # tensors
    "nan": put(WEIGHT, 1000, math.nan),
    "infinity": put(WEIGHT, 1001, math.inf),
    "nan-norm": put("model.norm.weight", 3, math.nan),
    "huge-norm": put("layers.1.input_layernorm.weight", 3, 3e38),
    "missing-tensor": header(lambda c: c.remove(WEIGHT)),
    "missing-norm": header(lambda c: c.remove("layers.2.input_layernorm.weight")),
    "integer-weight": set_field(WEIGHT, "dtype", "I16"),
    # 5 MiB, more than is read and written at once
    "foreign-tensors": both(add("score.weight", shape=(2560, 1024)),
                            add("vision.a", "vision.b", "model.layers.99.mlp.up_proj.bias")),
    "adapter-beside": add("model." + LINEAR + "lora_A.weight", "model.layers.0.self_attn.rotary_emb.inv_freq"),
    "adapter-around": rename(WEIGHT, LINEAR + "base_layer.weight"),
    "missing-in-shards": both(header(lambda c: c.remove(WEIGHT)), index_of(None)),
    "shard-truncated": both(index_of(None), lambda folder: shorten(folder, SHARD, 0.7)),
    "index-not-json": both(index_of(None), lambda folder: shorten(folder, INDEX, 0.5)),
    "index-empty": index_of({}),
    "missing-shard": index_of({"model.norm.weight": "model-00007-of-00009.safetensors"}),
    "index-lies": index_of({"no.such.tensor": SHARD}),
    "index-dots": change_index(lambda names: names.update({name: "./" + SHARD for name in names})),
    "index-dots-out": change_index(lambda names: names.update({"model.norm.weight": "./../" + SHARD})),
    "index-head": change_index(lambda names: names.update({"lm_head.weight": SHARD})),
    # names
    "prefix-more": rename_all(lambda name: name if name == "__metadata__" else "_orig_mod." + name),
    "prefix-none": rename_all(lambda name: name.removeprefix("model.")),
    "untied": untie,
    # config.json
    "config-shape": config(intermediate_size=320),
    "config-vocabulary": config(vocab_size=999),
    "config-heads": config(num_attention_heads=5),
    "config-negative": config(hidden_size=-128),
    "unknown-architecture": config(architectures=["GPTNeoXForCausalLM"]),
    "images": config(architectures=["Gemma3nForConditionalGeneration"]),
    "unknown-field": config(router_aux_loss_coef=0.5),
    "unknown-activation": config(hidden_act="relu6"),
    "other-quantization": config(quantization_config={"quant_method": "gptq", "bits": 4}),
    # masters
    "wrong-crc": flip_byte(LINEAR + "codes"),
    "wrong-other": flip_byte("model.norm.weight"),
    "nan-scale": put(LINEAR + "scales.w4", 5, math.nan),
    "missing-scales": header(lambda c: c.remove(LINEAR + "scales.w4")),
    "missing-codes": header(lambda c: c.remove(LINEAR + "codes")),
    "codes-dtype": set_field(LINEAR + "codes", "dtype", "I8"),
    "format-version": quantization(format_version=999),
    "slice-rule": quantization(slice_rule="floor"),
    "width-list": quantization(widths=[9, 4]),
    "no-provenance": remove_file("matquant.json"),
}


def main():
    if sys.argv[1:] == ["--list"]:
        print("\n".join(DEFECTS))
        return
    source, target, defect = sys.argv[1:]
    shutil.copytree(source, target)
    DEFECTS[defect](target)


main()
