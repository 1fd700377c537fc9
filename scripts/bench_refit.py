"""The refit's part of scripts/bench.sh: the rate of its training steps (standard library only)."""
import json
import shutil

from bench_machine import Others, command

WIDTH = 2
LENGTH = 512
FEW, MORE = 8, 16  # sequences: what more of them take is training alone, without measuring before and after it
PHASES = ("teacher", "measuring", "loading", "head", "blocks")  # as bench_refit prints their shares
KEPT = 1024  # MiB for blocks' insides, as many as quantize takes where memory is free


def flops_of_token(config):
    """Multiplications and additions of one token of a step: the student's linears forward, input and weight gradient, and its
    attention (causal: half of a sequence is seen); the head for the teacher, for the student and back. The teacher's head is in
    each step, since its logits are too many to be kept (its blocks are not: they were run before): with the one epoch that is
    measured here each token needs it once. The head's own gradient is not made: its weights stand still."""
    hidden, ffn, heads = config["hidden_size"], config["intermediate_size"], config["num_attention_heads"]
    dim = config.get("head_dim") or hidden // heads
    key_values = config.get("num_key_value_heads", heads)
    linears = 2 * hidden * dim * heads + 2 * hidden * dim * key_values + 3 * hidden * ffn
    attention = 2 * heads * dim * (LENGTH + 1) / 2  # scores, and values by them
    blocks = config["num_hidden_layers"] * (linears + attention)
    return 2 * 3 * (blocks + hidden * config["vocab_size"])


def trial(shape, master, train, threads, options):
    """Of refitting one width with so many sequences, a step each, on their first sight: seconds without the teacher's, and the
    phases' shares of the time with them, in percent."""
    cells = command(options.build / "tests/bench/bench_refit", shape.folder, master, shape.calib, WIDTH, train, 1, -1,
                    "bf16" if options.gemm == "bf16" else "float32", 1, KEPT, threads).printed.split("|")
    if int(cells[4]) != train:
        raise SystemExit(f"bench: the refit was trained on {cells[4]} sequences, not on {train}")
    return float(cells[10]), dict(zip(PHASES, map(int, cells[11].split(","))))


def refit(shape, threads, options):
    """Rate of the steps, by the clock: the best of the repeats; None where nothing can be told from them."""
    master = options.work / "rtn-master"
    command(options.build / "matquant", "quantize", shape.folder, "-o", master, "--force", "--recipe", "rtn",
            "--group-size", "64", "--quiet")
    others = Others()
    repeats = (options.repeats + 2) // 3
    config = json.loads((shape.folder / "config.json").read_text())
    many = FEW + (MORE if config["num_hidden_layers"] > 10 else 2 * MORE)  # a small model's steps are short
    (short, _), (long, shares) = (min((trial(shape, master, train, threads, options) for _ in range(repeats)),
                                      key=lambda one: one[0]) for train in (FEW, many))
    shutil.rmtree(master)
    tokens, took = (many - FEW) * LENGTH, long - short
    result = {"shape": shape.title, "threads": threads, "bf16": options.gemm == "bf16", "others": others.share(),
              "shares": shares}
    if took > 0:
        result.update(tokens_a_second=tokens / took, gflops=flops_of_token(config) * tokens / took * 1e-9)
    return result


def print_refit(runs, learned):
    """learned: what was measured of the blocks, for the bare library's rate."""
    print(f"\nThe refit's steps, {WIDTH} bits, one sequence of {LENGTH} tokens each, insides kept, by the clock (without")
    print("loading the model, the teacher's pass and measuring); (a) as above")
    for run in runs:
        bare = [one["bare_gflops"] for one in learned if one["shape"] == run["shape"]
                and one["settings"]["threads"] == run["threads"] and not one["settings"]["cpu"]]
        name = f"  {run['shape']}, {run['threads']} thread(s), {'bfloat16' if run['bf16'] else 'float32'}: "
        if "gflops" not in run:
            print(name + "disturbed")
            continue
        share = f", {run['gflops'] / bare[0]:.3f} of (a)" if bare else ""
        print(f"{name}{run['tokens_a_second']:.0f} tokens/s, {run['gflops']:.0f} GFLOP/s{share}; "
              f"others {100 * run['others']:.0f} %")
        if "shares" in run:
            print("    of all of its time, in %: " + ", ".join(f"{name} {run['shares'][name]}" for name in PHASES))
