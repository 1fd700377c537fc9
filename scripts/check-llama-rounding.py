#!/usr/bin/env python3
"""Is what llama.cpp computes otherwise than matquant its rounding of activations? By hand, in test-readers.sh's environment:

    ~/.cache/matquant/readers-venv/bin/python scripts/check-llama-rounding.py MODEL TEXT [--build FOLDER] [--tokens N]

Takes the first blocks of a Llama model with its head, quantizes them by rounding, and runs llama.cpp (float32 cache), its
emulation (readers_programs.py) and plain float32 on the numbers in the GGUF file. Prints the root of the mean squared
difference of logits, divided by that of the logits about their mean. If rounding is all, the emulation is much nearer to
llama.cpp than float32 is, with one block; with more, sums in another order move activations across rounding edges, and
soon both round apart from each other.
"""
import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import numpy as np

import readers_files
import readers_programs


def cut(source, folder, blocks):
    """The model's first blocks."""
    from safetensors.torch import load_file, save_file
    folder.mkdir()
    for file in source.iterdir():
        if file.suffix == ".json" and "index" not in file.name:
            shutil.copy(file, folder)
    config = json.loads((folder / "config.json").read_text())
    config["num_hidden_layers"] = blocks
    (folder / "config.json").write_text(json.dumps(config))
    tensors = {}
    for file in source.glob("*.safetensors"):
        tensors.update({name: tensor for name, tensor in load_file(file).items()
                        if not name.startswith("model.layers.") or int(name.split(".")[2]) < blocks})
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return config


def check(matquant, master, work, config, ids, bits):
    def run(form, output, *more):
        subprocess.run([matquant, "slice", master, "-o", output, "--bits", str(bits), "--format", form, "--force", "-q",
                        *more], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    file, plain = str(work / "slice.gguf"), str(work / "plain")
    run("gguf", file)
    run("safetensors", plain, "--dtype", "f32")
    matrices = readers_files.gguf_matrices(file, config)
    readers_files.put_weights(plain, {prefix: matrix.weights for prefix, matrix in matrices.items()})
    theirs = readers_programs.llama_cpp(file, len(ids), False, True).logits(ids)
    emulated = readers_programs.emulated_llama_cpp(plain, matrices).logits(ids)
    exact = readers_programs.transformers(plain).logits(ids)
    power = float(((exact - exact.mean(1, keepdims=True)) ** 2).sum())

    def apart(a, b):
        return np.sqrt(float(((a - b) ** 2).sum()) / power)
    print("%d blocks, %s: llama.cpp to float32 %.1e, emulation to float32 %.1e, llama.cpp to emulation %.1e" %
          (config["num_hidden_layers"], readers_files.gguf_kinds(matrices),
           apart(theirs, exact), apart(emulated, exact), apart(theirs, emulated)), flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("text", type=pathlib.Path)
    parser.add_argument("--build", type=pathlib.Path, default=pathlib.Path(__file__).parent.parent / "build/release")
    parser.add_argument("--tokens", type=int, default=256)
    options = parser.parse_args()
    from tokenizers import Tokenizer
    text = options.text.read_text(errors="replace")[:20 * options.tokens]
    ids = Tokenizer.from_file(str(options.model / "tokenizer.json")).encode(text).ids[:options.tokens]
    with tempfile.TemporaryDirectory() as name:
        work = pathlib.Path(name)
        for blocks in (1, 2, 4):
            config = cut(options.model, work / ("model-%d" % blocks), blocks)
            master = work / ("master-%d" % blocks)
            subprocess.run([options.build / "matquant", "quantize", work / ("model-%d" % blocks), "-o", master, "--recipe",
                            "rtn", "--group-size", "64", "-q"], check=True, stdout=subprocess.DEVNULL)
            for bits in (8, 5, 4):
                check(options.build / "matquant", master, work, config, ids, bits)
        sys.stdout.flush()
    os._exit(0)  # llama-cpp-python trips over its own clean-up at exit


if __name__ == "__main__":
    main()
