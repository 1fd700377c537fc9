#!/usr/bin/env python3
"""make_wide_model.py DEMO OUT: a model of one block with random weights whose rows are 256 long, as K-quants want them, and
the demo model's tokenizer."""
import array
import json
import os
import random
import shutil
import struct
import sys

WIDTH, HEADS = 256, 4


def bf16(values):
    """Cut off, not rounded: any weights will do."""
    words = array.array("I", array.array("f", values).tobytes())
    return array.array("H", (word >> 16 for word in words)).tobytes()


def main():
    demo, out = sys.argv[1:]
    with open(os.path.join(demo, "config.json"), encoding="utf-8") as file:
        config = json.load(file)
    config.update(hidden_size=WIDTH, intermediate_size=WIDTH, num_hidden_layers=1, num_attention_heads=HEADS,
                  num_key_value_heads=HEADS, head_dim=WIDTH // HEADS)
    shapes = {"model.embed_tokens": [config["vocab_size"], WIDTH]}
    for name in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj",
                 "mlp.up_proj", "mlp.down_proj"):
        shapes["model.layers.0." + name] = [WIDTH, WIDTH]
    for name in ("model.layers.0.input_layernorm", "model.layers.0.post_attention_layernorm", "model.norm"):
        shapes[name] = [WIDTH]
    source, header, data = random.Random(1), {}, []
    for name, shape in shapes.items():
        count = shape[0] if len(shape) == 1 else shape[0] * shape[1]
        data.append(bf16([1.0] * count if len(shape) == 1 else [source.gauss(0, 0.06) for _ in range(count)]))
        begin = sum(map(len, data[:-1]))
        header[name + ".weight"] = {"dtype": "BF16", "shape": shape, "data_offsets": [begin, begin + len(data[-1])]}
    os.mkdir(out)
    for name in os.listdir(demo):
        if name.startswith(("tokenizer", "generation_config", "chat_template")):
            shutil.copyfile(os.path.join(demo, name), os.path.join(out, name))
    with open(os.path.join(out, "config.json"), "w", encoding="utf-8") as file:
        json.dump(config, file)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(os.path.join(out, "model.safetensors"), "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + b"".join(data))


main()
