"""The refit's part of scripts/bench.sh: the rate of its training steps (standard library only)."""
import json
import os

from bench_machine import Others, command

WIDTH = 2
LENGTH = 512
FEW, MANY = 8, 24  # sequences: what the difference takes is training alone, without measuring before and after it
KEPT = 1024  # MiB for blocks' insides, as many as quantize takes where memory is free


def flops_of_token(config):
    """Multiplications and additions of one token of a step: the student's linears forward, input and weight gradient, and its
    attention (causal: half of a sequence is seen); the head for the teacher, for the student and back."""
    hidden, ffn, heads = config["hidden_size"], config["intermediate_size"], config["num_attention_heads"]
    dim = config.get("head_dim") or hidden // heads
    key_values = config.get("num_key_value_heads", heads)
    linears = 2 * hidden * dim * heads + 2 * hidden * dim * key_values + 3 * hidden * ffn
    attention = 2 * heads * dim * (LENGTH + 1) / 2  # scores, and values by them
    blocks = config["num_hidden_layers"] * (linears + attention)
    return 2 * 3 * (blocks + hidden * config["vocab_size"])


def seconds(shape, master, train, threads, options):
    """Of refitting one width with so many sequences, a step each, on their first sight."""
    words = [options.build / "tests/bench/bench_refit", shape.folder, master, shape.calib, WIDTH, train, 1, -1,
             "bf16" if options.gemm == "bf16" else "float32", 1, KEPT]
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = str(threads)
    try:
        return float(command(*words).printed.split("|")[9])
    finally:
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = before


def refit(shape, threads, options):
    """Rate of the steps: the best of the repeats."""
    master = options.work / "rtn-master"
    command(options.build / "matquant", "quantize", shape.folder, "-o", master, "--force", "--recipe", "rtn",
            "--group-size", "64", "--quiet")
    others = Others()
    repeats = (options.repeats + 2) // 3
    few, many = (min(seconds(shape, master, train, threads, options) for _ in range(repeats)) for train in (FEW, MANY))
    tokens = (MANY - FEW) * LENGTH
    needed = flops_of_token(json.loads((shape.folder / "config.json").read_text())) * tokens
    return {"shape": shape.title, "threads": threads, "bf16": options.gemm == "bf16", "others": others.share(),
            "tokens_a_second": tokens / (many - few), "gflops": needed / (many - few) * 1e-9}


def print_refit(runs, learned):
    """learned: what was measured of the blocks, for the bare library's rate."""
    print(f"\nThe refit's steps, {WIDTH} bits, one sequence of {LENGTH} tokens each, insides kept (without loading the model,")
    print("the teacher's pass and measuring); (a) as above")
    for run in runs:
        bare = [one["bare_gflops"] for one in learned
                if one["shape"] == run["shape"] and one["settings"]["threads"] == run["threads"]]
        share = f", {run['gflops'] / bare[0]:.3f} of (a)" if bare else ""
        print(f"  {run['shape']}, {run['threads']} thread(s), {'bfloat16' if run['bf16'] else 'float32'}: "
              f"{run['tokens_a_second']:.0f} tokens/s, {run['gflops']:.0f} GFLOP/s{share}; others {100 * run['others']:.0f} %")
