"""What bench_peers.py, bench_tax.py and bench_runtimes.py have in common (standard library only): the same calibration ids for
all quantizers, a run of matquant or of a peer with its time and memory, `matquant eval` of what came out, and results kept as
JSON."""
import argparse
import json
import pathlib
import sys

from bench_machine import Others, command

BATCH, WINDOW = 4, 1024  # sequences a step of the peers; tokens in a window of the evaluation
TEXTS = {"wikitext2-test.raw": "WikiText-2 test"}


def add_options(parser, learned=True):
    """learned: also those of how long matquant and AutoRound learn."""
    for name in ("root", "build", "python"):
        parser.add_argument("--" + name, type=pathlib.Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--calib", type=pathlib.Path, required=True)
    parser.add_argument("--text", type=pathlib.Path, required=True)
    parser.add_argument("--work", type=pathlib.Path)
    parser.add_argument("--results", type=pathlib.Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--seq-len", type=int, default=512)
    parser.add_argument("--windows", type=int, default=32)
    if learned:
        parser.add_argument("--iters", type=int)
        parser.add_argument("--epochs", type=int, default=4)


def prepare(options, work, sequences):
    """Fills what was not said, makes the work folder and the calibration ids; their path."""
    options.work = options.work or options.root / "build" / work
    options.work.mkdir(parents=True, exist_ok=True)
    ids = options.work / f"{options.model.name}-ids.npy"
    if not ids.exists():
        command(options.python, options.root / "scripts/bench_peers_run.py", "ids", options.model, options.calib, ids,
                "--samples", sequences, "--seq-len", options.seq_len)
    return ids


def kept(path, make, who):
    """The JSON object in path; made and put there if it is not."""
    if not path.exists():
        print(f"{who}: {path.stem}", file=sys.stderr)
        text = json.dumps(make(), indent=1)
        path.with_suffix(".part").write_text(text + "\n")
        path.with_suffix(".part").rename(path)
    return json.loads(path.read_text())


def timed(*words):
    """What a command printed, and how long and how large it was; others' share says whether the time means anything."""
    others = Others()
    run = command(*words)
    return run.printed, {"seconds": run.seconds, "processor_seconds": run.processor_seconds, "max_rss": run.max_rss,
                         "others": others.share()}


def matquant(options, ids, master, words):
    """One master; ids None where nothing is learned."""
    line = [options.build / "matquant", "quantize", options.model, "-o", master, "--force", "--threads", options.threads,
            "--json", "--quiet"]
    line += ["--no-extend"] if ids else []  # the others learn from nothing but this text, either
    line += words
    if ids:
        line += ["--calib", ids, "--seq-len", options.seq_len]
        for name, value in (("--samples", options.samples), ("--epochs", options.epochs)):
            line += [] if name in words or "--fast" in words else [name, value]
    printed, cost = timed(*line)
    version = command(options.build / "matquant", "--version").printed.split()[-1]
    return {"version": version, "quantizer_seconds": json.loads(printed)["seconds"], **cost}


def peer(options, tool, ids, folder, bits, group_size, group_fallback=0, iters=None):
    """A plain folder, by a run of bench_peers_run.py in the peers' environment. By default AutoRound visits as many tokens in a
    block as matquant does."""
    iters = iters or options.iters or max(1, options.epochs * options.samples // BATCH)
    words = [options.python, options.root / "scripts/bench_peers_run.py", tool, options.model, ids, folder, "--bits", bits,
             "--group-size", group_size, "--group-fallback", group_fallback, "--iters", iters, "--batch", BATCH,
             "--threads", options.threads]
    printed, cost = timed(*words)
    return {**json.loads(printed.strip().splitlines()[-1]), **cost}


def evaluate(options, folder, bits=None, tasks=(), max_items=None):
    """What `matquant eval` says of the text, and of the tasks where there are any."""
    words = [options.build / "matquant", "eval", folder, "--text", options.text, "--windows", options.windows, "--seq-len",
             WINDOW, "--threads", options.threads, "--json", "--quiet"]
    words += ["--bits", bits] if bits else []
    words += ["--tasks", *tasks] if tasks else []
    words += ["--max-items", max_items] if max_items else []
    return json.loads(command(*words).printed)


def wrapped_lines(reports):
    """What had to be mended of AutoRound's exports (bench_peers_run.py)."""
    counts = [f"{report['wrapped']:,}" for report in reports if report and report.get("wrapped")]
    if not counts:
        return []
    return [f"Of AutoRound's codes of 8 bits {' and '.join(counts)} are 256 or -1, which it packs as 0 and 255: taken for 255 and"
            " 0."]


def number(value):
    return f"{value:.2f}" if value < 1000 else f"{value:,.0f}"
