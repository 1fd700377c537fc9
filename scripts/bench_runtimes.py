#!/usr/bin/env python3
"""The runs and the tables of scripts/bench-runtimes.sh, which says how to call it (standard library only)."""
import argparse
import json
import pathlib
import shutil
import sys

from bench_machine import command, stamp
from bench_quantizers import BATCH, TEXTS, WINDOW, add_options, evaluate, kept, number, prepare, timed
from bench_recipes_table import load, measured, write_section
from bench_tax import provenance, setting

BEGIN, END = "<!-- runtimes: begin -->", "<!-- runtimes: end -->"
GROUP_SIZE = 64
WIDTHS, GGUF_WIDTHS = (8, 4, 3, 2), (8, 6, 5, 4, 3, 2)
PERMUTED = "-permuted"
LLAMA = {"Q8_0": 8, "Q4_0": 4, "Q4_1": 4, "IQ4_NL": 4, "Q4_K_M": 4, "Q3_K_M": 3, "Q2_K": 2}  # and their nominal widths
WITHOUT_IMATRIX = ("Q8_0",)  # where llama.cpp does not look at one
DEFAULT_STEPS, DEFAULT_RATE = 2048 // BATCH, 1e-6  # mlx_lm.dwq's: samples by batch, learning rate
GGUF_RUNS = (*(f"matquant-gguf-{bits}" for bits in GGUF_WIDTHS),
             *(f"llama-{kind}{end}" for kind in LLAMA for end in ("", "-imatrix")
               if not (end and kind in WITHOUT_IMATRIX)), "llama-Q4_K_M-embeddings")
MLX_RUNS = (*(f"matquant-mlx-{bits}" for bits in WIDTHS), *(f"mlx-{bits}" for bits in WIDTHS),
            *(f"mlx-{method}-{bits}" for method in ("gptq", "dwq") for bits in (4, 2)))
PLAIN_RUNS = ("full", *GGUF_RUNS, *MLX_RUNS)
RUNS = (*PLAIN_RUNS, *(run + PERMUTED for run in PLAIN_RUNS))


def bits_of(run):
    kind = run.split("-")[1]
    return LLAMA[kind] if run.startswith("llama") else int(run.rpartition("-")[2])


class Source:
    """The model, or the one with its channels in another order, and what is made of it for several runs, once each."""

    def __init__(self, options, ids, permuted):
        self.options, self.ids, self.permuted = options, ids, permuted
        self.end = PERMUTED if permuted else ""
        self.master = options.permuted_master if permuted else options.master

    def words(self, name, *words):
        """Of a command of bench_runtimes_run.py."""
        return [self.options.python, self.options.root / "scripts/bench_runtimes_run.py", name, *words, "--threads",
                self.options.threads]

    def run(self, name, *words):
        """What such a command said, and what it took."""
        printed, cost = timed(*self.words(name, *words))
        return {**last_object(printed), **cost}

    def made(self, name, make):
        """A path of the work folder; make(path) makes what is not there, complete or not at all."""
        path = self.options.work / name
        if not path.exists():
            part = path.with_name("part-" + name)
            shutil.rmtree(part, ignore_errors=True)
            make(part)
            part.rename(path)
        return path

    def model(self):
        if not self.permuted:
            return self.options.model
        return self.made("permuted", lambda out: command(*self.words("permute", self.options.model, out)))

    def gguf(self):
        """The model itself as an unquantized GGUF: one of a slice with the model's numbers in it."""
        def make(out):
            slice_of(self.options, self.options.master, out, 8, "--dtype", "bf16")
            command(*self.words("source", self.model(), out))
            self.plain(out, lambda report: report["same"] or sys.exit(f"bench-runtimes: {out} is not {self.model()}"))
        return self.made(f"source{self.end}.gguf", make)

    def imatrix(self):
        return self.made(f"imatrix{self.end}.npz", lambda out: command(*self.words("imatrix", self.model(), self.ids, out)))

    def plain(self, path, use):
        """What use() makes of a GGUF's report; its weights are in the folder that it may measure."""
        folder = self.options.work / "part-plain"
        shutil.rmtree(folder, ignore_errors=True)
        result = use(last_object(command(*self.words("plain", self.model(), path, folder)).printed))
        shutil.rmtree(folder)
        return result


def last_object(printed):
    """mlx-lm prints lines of its own before."""
    return json.loads(printed.strip().splitlines()[-1])


def slice_of(options, master, out, bits, *words):
    """What it took."""
    return timed(options.build / "matquant", "slice", master, "-o", out, "--bits", bits, "--force", "--threads", options.threads,
                 "--quiet", "--json", *words)[1]


# --- runs ---------------------------------------------------------------------------------------------------------


def of_gguf(source, path, made):
    """The report of a run that made a GGUF file, which is not kept; made: what quantizing said."""
    def use(report):
        facts = {key: report[key] for key in ("bytes", "bits_per_weight", "embeddings", "types")}
        return {**facts, "perplexity": evaluate(source.options, source.options.work / "part-plain")["perplexity"]}
    result = {**made, **source.plain(path, use)}
    path.unlink()
    return result


def llama(source, run):
    _, kind, *how = run.split("-")
    out = source.options.work / "part-llama.gguf"
    words = ["--type", kind, *(["--imatrix", source.imatrix()] if "imatrix" in how else []),
             *(["--embeddings", "default"] if "embeddings" in how else [])]
    return of_gguf(source, out, source.run("llama", source.gguf(), out, *words))


def of_matquant(source, run):
    if source.master is None:
        sys.exit(f"bench-runtimes: {run}{PERMUTED} needs --permuted-master")
    _, kind, bits = run.split("-")
    out = source.options.work / ("part-matquant.gguf" if kind == "gguf" else "part-matquant")
    made = {"master": str(source.master.resolve()), "provenance": provenance(source.master),
            **slice_of(source.options, source.master, out, bits, "--format", kind)}
    if kind == "gguf":
        return of_gguf(source, out, made)
    return of_folder(source, out, {**made, **last_object(command(*source.words("sizes", source.model(), out)).printed)})


def of_folder(source, folder, made):
    result = {**made, "perplexity": evaluate(source.options, folder)["perplexity"]}
    shutil.rmtree(folder)
    return result


def mlx(source, run):
    method, bits = (["plain"] + run.split("-")[1:])[-2:]
    out = source.options.work / "part-mlx"
    shutil.rmtree(out, ignore_errors=True)
    words = ["--bits", bits, "--group-size", GROUP_SIZE, "--method", method, "--ids", source.ids]
    if method == "dwq":
        words += ["--rate", DEFAULT_RATE * DEFAULT_STEPS / max(1, source.options.samples // BATCH)]
    return of_folder(source, out, source.run("mlx", source.model(), out, *words))


def measure(source, run):
    if run == "full":
        report = {"perplexity": evaluate(source.options, source.model())["perplexity"]}
    else:
        report = {"matquant": of_matquant, "llama": llama, "mlx": mlx}[run.split("-")[0]](source, run)
    options = source.options
    return {**report, "text": options.text.name, "windows": options.windows, "samples": options.samples,
            "seq_len": options.seq_len, **stamp()}


def check(options, report, path):
    """That it was measured on this text and, if it is a slice, of this master."""
    if (report["text"], report["windows"]) != (options.text.name, options.windows):
        sys.exit(f"bench-runtimes: {path} was measured on {report['windows']} windows of {report['text']}")
    if "master" in report:
        given = options.permuted_master if PERMUTED in path.stem else options.master
        if given is not None and report["master"] != str(given.resolve()):
            sys.exit(f"bench-runtimes: {path} is of another master, {report['master']}: remove it to begin anew")


# --- tables -------------------------------------------------------------------------------------------------------


def title_of(run, report):
    if run.startswith("matquant"):
        return "matquant's slice"
    kind, *how = run.split("-")[1:]
    if run.startswith("llama"):
        title = kind + (", importance matrix" if "imatrix" in how else "")
        return title + (f", embeddings {report['embeddings']}" if "embeddings" in how else "")
    return f"mlx_lm.{kind}, rate {report['rate']:.2g}" if kind == "dwq" else f"mlx_lm.{kind}" if how else "mlx_lm.convert"


def types_of(report):
    """The types of the linears, with their shares of the weights."""
    shares = report["types"]
    if len(shares) == 1:
        return next(iter(shares))
    return ", ".join(f"{kind} {100 * share:.0f} %" if share >= 0.01 else f"{kind} < 1 %" for kind, share in shares.items())


def rows(found, runs, with_types):
    lines = []
    for run in sorted((run for run in runs if run in found or run + PERMUTED in found), key=bits_of, reverse=True):
        both = [found.get(run), found.get(run + PERMUTED)]
        one = both[0] or both[1]
        cells = [str(bits_of(run)), title_of(run, one), *([types_of(one)] if with_types else [])]
        cells += [f"{one['bytes'] / 1e6:.1f}", f"{one['bits_per_weight']:.2f}"]
        cells += [number(report["perplexity"]) if report else "-" for report in both]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def versions(found):
    named = {f"{report['package']} {report['version']}" for report in found.values() if "package" in report}
    tools = {report["provenance"]["tool"] for report in found.values() if "provenance" in report}
    return ", ".join([*sorted(tools), *sorted(named)])


def learned_lines(found):
    """What matquant's masters were made with."""
    told = {}
    for run, report in found.items():
        if "provenance" in report:
            which = "The master of the permuted source" if run.endswith(PERMUTED) else "The master"
            told[which] = f"{which}: {setting(report)}."
    return list(told.values())


def table(found, options):
    full, permuted = (found.get("full" + end) for end in ("", PERMUTED))
    head = ["size, MB", "bits a weight", "perplexity", "permuted source"]
    lines = [
        BEGIN,
        "## Beside llama.cpp and MLX",
        "",
        f"{options.title}: the same model, one master's slices beside what llama.cpp and mlx-lm make of the model for that type",
        "alone. Perplexity on"
        f" {TEXTS.get(full['text'], full['text'])} ({full['windows']} windows of {WINDOW} tokens; full precision"
        f" {number(full['perplexity'])}{', permuted ' + number(permuted['perplexity']) if permuted else ''}), all by",
        "`matquant eval`: of GGUF files after their weights were multiplied out to float32, of MLX's folders as they are.",
        "Size: of a GGUF file with its tokenizer, of a folder's tensors; bits a weight: of the linears with scales and offsets.",
        "Embeddings, the head too, stay in bfloat16 in all, but where a row says otherwise. The importance matrix, gptq and dwq",
        f"have {full['samples']} x {full['seq_len']} calibration tokens. Permuted source: the same model with its channels in"
        " another order. Made by",
        "`scripts/bench-runtimes.sh`.",
        *learned_lines(found),
        "",
        f"{versions(found)}; {measured([options.work / f'{run}.json' for run in found])}.",
        "",
    ]
    for title, runs, more in (("GGUF", GGUF_RUNS, ["types of the linears"]), ("MLX", MLX_RUNS, [])):
        its_rows = rows(found, runs, bool(more))
        if its_rows:
            names = ["bits", title, *more, *head]
            lines += ["| " + " | ".join(names) + " |", "|" + "---|" * len(names), *its_rows, ""]
    return lines + [END]


def main():
    parser = argparse.ArgumentParser(prog="bench-runtimes.sh", description=__doc__)
    add_options(parser, learned=False)
    parser.add_argument("--model", type=pathlib.Path)
    parser.add_argument("--title", default="SmolLM2-135M-Instruct")
    parser.add_argument("--master", type=pathlib.Path, required=True)
    parser.add_argument("--permuted-master", type=pathlib.Path)
    parser.add_argument("--runs")
    options = parser.parse_args()
    for master in filter(None, (options.master, options.permuted_master)):
        if not (master / "matquant.json").exists():
            parser.error(f"{master} is no master")
    options.model = options.model or options.root / "models/smollm2"
    options.results = options.results or options.root / "tests/bench/RESULTS.md"
    without = [] if options.permuted_master else [run + PERMUTED for run in PLAIN_RUNS if run.startswith("matquant")]
    runs = options.runs.split() if options.runs is not None else [run for run in RUNS if run not in without]
    for run in runs:
        if run not in RUNS:
            sys.exit(f"bench-runtimes: no run {run}: they are {' '.join(RUNS)}")
    ids = prepare(options, "bench-runtimes", options.samples)
    sources = {permuted: Source(options, ids, permuted) for permuted in (False, True)}
    for run in runs:
        path, permuted = options.work / f"{run}.json", run.endswith(PERMUTED)
        kept(path, lambda: measure(sources[permuted], run.removesuffix(PERMUTED)), "bench-runtimes")
    found = {run: load(options.work / f"{run}.json") for run in RUNS if (options.work / f"{run}.json").exists()}
    for run, report in found.items():
        check(options, report, options.work / f"{run}.json")
    if "full" not in found or not any(run in found for run in RUNS if not run.startswith("full")):
        sys.exit("bench-runtimes: nothing to compare yet: the run full and another are needed")
    lines = table(found, options)
    write_section(options.results, lines)
    print("\n".join(lines))


if __name__ == "__main__":
    main()
