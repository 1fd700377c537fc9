"""What scripts/bench.sh measures on: the demo model, SmolLM2, and a block of Llama-2-7B's shape that is made here."""
import array
import json
import math
import os
import pathlib
import random
import shutil
import struct
import sys

DEFAULTS = {"samples": 64, "seq-len": 512, "epochs": 4, "batch": 2}  # those of matquant quantize
LLAMA = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "max_position_embeddings": 4096,
         "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": True}
# A block of Llama-2-7B's with a vocabulary of 256.
LLAMA7B = {**LLAMA, "hidden_size": 4096, "intermediate_size": 11008, "num_attention_heads": 32, "num_key_value_heads": 32,
           "num_hidden_layers": 1, "vocab_size": 256}


def tensors_of(config):
    """{name: shape} of a Llama."""
    hidden, ffn = config["hidden_size"], config["intermediate_size"]
    head_dim = hidden // config["num_attention_heads"]
    keys = config["num_key_value_heads"] * head_dim
    shapes = {"model.embed_tokens.weight": (config["vocab_size"], hidden), "model.norm.weight": (hidden,)}
    if not config["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (config["vocab_size"], hidden)
    for layer in range(config["num_hidden_layers"]):
        block = f"model.layers.{layer}."
        for name, rows in (("q", hidden), ("k", keys), ("v", keys), ("o", hidden)):
            shapes[f"{block}self_attn.{name}_proj.weight"] = (rows, hidden)
        for name in ("gate", "up"):
            shapes[f"{block}mlp.{name}_proj.weight"] = (ffn, hidden)
        shapes[block + "mlp.down_proj.weight"] = (hidden, ffn)
        for name in ("input_layernorm", "post_attention_layernorm"):
            shapes[f"{block}{name}.weight"] = (hidden,)
    return shapes


def write_checkpoint(folder, config, write_tensor):
    """config.json and model.safetensors of bfloat16. write_tensor(file, shape, size): size bytes of one tensor."""
    shapes, header, at = tensors_of(config), {}, 0
    for name, shape in shapes.items():
        size = 2 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    with open(folder / "partial", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for shape in shapes.values():
            write_tensor(file, shape, 2 * math.prod(shape))
    (folder / "config.json").write_text(json.dumps(config))
    os.rename(folder / "partial", folder / "model.safetensors")


def make_llama7b(folder):
    """One block of Llama-2-7B's shape, random weights."""
    if (folder / "model.safetensors").exists():
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    generator = random.Random(1)
    numbers = array.array("f", (generator.gauss(0.0, 0.02) for _ in range(1 << 18))).tobytes()
    weights = bytearray(len(numbers) // 2)
    weights[0::2], weights[1::2] = numbers[2::4], numbers[3::4]  # bfloat16: the upper half of a float32

    def write_tensor(file, shape, size):
        if len(shape) == 1:
            file.write(b"\x80\x3f" * shape[0])  # norms of ones
            return
        while size > 0:
            begin = 2 * generator.randrange(len(weights) // 4)  # so that rows differ
            piece = weights[begin : begin + size]
            file.write(piece)
            size -= len(piece)

    write_checkpoint(folder, LLAMA7B, write_tensor)


def write_npy(path, rows, length):
    ids = array.array("i", (random.Random(2).randrange(256) for _ in range(rows * length)))
    head = f"{{'descr': '<i4', 'fortran_order': False, 'shape': ({rows}, {length}), }}"
    head += " " * (63 - (10 + len(head)) % 64) + "\n"
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head.encode() + ids.tobytes())


class Shape:
    def __init__(self, title, folder, calib, text, settings):
        self.title, self.folder, self.calib, self.text, self.settings = title, folder, calib, text, settings


def find_shapes(options):
    data, found = options.root / "data", {}
    for name in options.shapes.split():
        if name == "demo":
            found[name] = Shape("demo model", data / "demo-model", data / "demo-calib.jsonl.gz", data / "demo-eval.txt",
                                {"blocks": 6})
        elif name == "smollm2":
            folder = pathlib.Path(os.environ.get("MATQUANT_SMOLLM2", options.root / "models/smollm2"))
            if not folder.is_dir():
                print(f"bench: {folder} is not there: left out", file=sys.stderr)
                continue
            # 30,000 tokens of text in the demo's files are too few for 64 x 512: the training text has enough.
            # Two blocks, of which the faster counts: only a run's first touches the memory of all for the first time.
            found[name] = Shape("SmolLM2-135M", folder, data / "demo-train.jsonl.gz", data / "demo-eval.txt",
                                {"blocks": 2})
        elif name == "llama7b":
            folder = options.work / "llama7b-block"
            make_llama7b(folder)
            write_npy(folder / "ids.npy", 4, DEFAULTS["seq-len"])
            found[name] = Shape("Llama-2-7B block", folder, folder / "ids.npy", None,
                                {"blocks": 1, "samples": 4, "epochs": 2})
        else:
            sys.exit(f"bench: no shape {name}")
    return found
