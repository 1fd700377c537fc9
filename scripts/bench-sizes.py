#!/usr/bin/env python3
"""bench-sizes.py: what `matquant quantize --dry-run` predicts for models of published shapes, as a table.

    scripts/bench-sizes.py [MATQUANT]        (default: build/release/matquant)

The folders have the shapes alone: their weights are holes in a file, so that nothing is downloaded and a dry run of 8 billion
parameters takes seconds. Operations are those of the matrix products; a run takes longer than these take ("Speed" in RESULTS.md
says by how much). Standard library only.
"""
import json
import pathlib
import subprocess
import sys
import tempfile

import bench_shapes

MODELS = {
    "Llama 3.2 1B": {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32,
                     "num_key_value_heads": 8, "vocab_size": 128256},
    "Llama 3.1 8B": {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
                     "num_key_value_heads": 8, "vocab_size": 128256, "tie_word_embeddings": False},
}
OPTIONS = (["--gemm", "onednn-bf16"], ["--gemm", "openblas"], ["--gemm", "onednn-bf16", "--fast"])
SEQUENCES = 476  # what the defaults read
GIB = 1024.0 ** 3


def make(folder, config):
    folder.mkdir()
    bench_shapes.write_checkpoint(folder, {**bench_shapes.LLAMA, **config},
                                  lambda file, shape, size: file.truncate(file.seek(size, 1)))
    bench_shapes.write_npy(folder / "ids.npy", SEQUENCES, bench_shapes.DEFAULTS["seq-len"])


def main():
    program = sys.argv[1] if len(sys.argv) > 1 else str(pathlib.Path(__file__).parents[1] / "build/release/matquant")
    print("| model | options | memory, GiB | master, GB | operations, 10^15 |")
    print("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as work:
        for name, config in MODELS.items():
            folder = pathlib.Path(work) / name.replace(" ", "-")
            make(folder, config)
            for options in OPTIONS:
                done = subprocess.run([program, "quantize", folder, "-o", folder / "master", "--calib", folder / "ids.npy",
                                       "--dry-run", "--json", "--quiet", *options], stdout=subprocess.PIPE)
                if done.returncode != 0:
                    sys.exit(done.returncode)
                said = json.loads(done.stdout)
                print(f"| {name} | `{' '.join(options)}` | {said['memory_predicted'] / GIB:.1f} | "
                      f"{said['output_bytes'] / 1e9:.1f} | {said['operations'] / 1e15:.1f} |", flush=True)


if __name__ == "__main__":
    main()
