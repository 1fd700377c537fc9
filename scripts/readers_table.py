#!/usr/bin/env python3
"""readers_table.py ROWS RESULTS VERSION: writes what test-readers.sh found as a section of a Markdown file, in place of
the section that is there; masters that this run has not tried keep their rows."""
import datetime
import json
import os
import re
import sys

BEGIN, END = "<!-- readers: begin -->", "<!-- readers: end -->"
HEAD = """## Tables

- cost: squared error of the weights that the format adds to the slice, divided by their squares; 0: exact.
- logits: root of the mean squared difference to matquant's of the numbers in the file, divided by that of the logits about
  their mean; in parentheses the bound. Beside an emulation of the reader's rounding: the median of the tokens' differences, its
  bound (1.25 times the emulation's), then all tokens' as in the other rows, the reader's and the emulation's, of which it may be
  three times. (Where these are missing the row is older than this bound, and 1.25 times was of all tokens'.)
- perplexity: the reader's, matquant's of the numbers in the file, and the difference, which may be 0.5 %. Where those
  numbers are not the slice's, its own perplexity follows: what the format costs. +-: the standard error of the difference,
  from those of the tokens, as if they were independent; where it is more than 0.25 %, the text was too short to tell.
- llama.cpp has two rows for each file of quantized matrices. "OpenBLAS": built with it, and 32 tokens or more at a time,
  llama.cpp unpacks them and multiplies in float32; that shows what the file holds. "Its kernels": fewer tokens at a time, or
  without BLAS, it rounds activations to 8 bits a block before each product. What that alone does (emulated, in float32
  otherwise) is the third perplexity, which has to be met to 0.5 % as the others meet matquant's. On a processor with AMX its
  kernels for that are left out (matrices are not repacked): they crash on every file, others' too.
- greedy: how many of 32 tokens that the reader generates by itself are matquant's first choice; where a word follows, the
  two best were nearer than the arithmetic resolves.
- overflow: the model's own numbers, as float32 has them, are beyond the type's largest, 65,504."""


def logits(row):
    if "median" not in row:
        return "%.1e (%.1e)" % (row["error"], row["bound"])
    return "%.1e (%.1e); all %.1e, %.1e" % (row["median"], row["bound"], row["error"], row["emulated_error"])


def cells(row):
    if "refused" in row:
        return [str(row["bits"]), "", "", "refused: " + row["refused"], "", "", ""]
    if "overflow" in row:
        return [str(row["bits"]), row["how"], "", "not numbers: in float32 they are up to %.3g" % row["overflow"], "", "",
                "overflow" if row["ok"] else "NO"]
    perplexity = "%.4f, %.4f" % (row["perplexity"], row["matquant"])
    if "emulated" in row:
        perplexity += " (%+.2f %%), emulated %.4f" % (100 * (row["perplexity"] / row["matquant"] - 1), row["emulated"])
    noise = " +- %.3f" % (100 * row["noise"]) if "noise" in row else ""
    perplexity += " (%+.3f%s %%)" % (100 * row["ratio"], noise)
    if "slice" in row:
        perplexity += "; slice %.4f (%+.2f %%)" % (row["slice"], 100 * (row["perplexity"] / row["slice"] - 1))
    greedy = str(row["greedy"]) + ("" if row["greedy"] == 32 else ", near tie" if row["tie"] else ", ANOTHER CHOICE")
    return [str(row["bits"]), row["how"], "%.1e" % row["cost"] if row["cost"] else "0",
            logits(row), perplexity, greedy, "yes" if row["ok"] else "NO"]


def measured_on(row):
    """Format and text: of what one table is."""
    return row["format"], row["windows"], row["tokens"], " of " + row["text"] if "text" in row else ""


def table(model, rows, version):
    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "?")
    lines = ["### " + model, "", "%s; %s, %d cores; %s." %
             (version, cpu, len(os.sched_getaffinity(0)), datetime.date.today())]
    for measured in dict.fromkeys(map(measured_on, rows)):
        own = [row for row in rows if measured_on(row) == measured]
        readers = ", ".join(dict.fromkeys(row["reader"] for row in own if "reader" in row))
        lines += ["", "`%s`: %s; %d windows of %d tokens%s." % (measured[0], readers or "not tried", *measured[1:]), "",
                  "| bits | arithmetic | cost | logits | perplexity | greedy | agrees |", "|---|---|---|---|---|---|---|"]
        lines += ["| " + " | ".join(cells(row)) + " |" for row in own]
    return "\n".join(lines)


def main():
    path, results, version = sys.argv[1:]
    rows = [json.loads(line) for line in open(path)]
    tables = {model: table(model, [row for row in rows if row["model"] == model], version)
              for model in dict.fromkeys(row["model"] for row in rows)}
    text = open(results).read() if os.path.exists(results) else "# Readers\n"
    old = re.search(re.escape(BEGIN) + "(.*?)" + re.escape(END), text, flags=re.S)
    kept = dict(re.findall(r"^### (.*?)\n(.*?)(?=^### |\Z)", old.group(1), flags=re.S | re.M)) if old else {}
    parts = {model: "### %s\n%s" % (model, rest) for model, rest in kept.items()}
    parts.update(tables)
    section = "\n\n".join([BEGIN + "\n" + HEAD, *(part.strip() for part in parts.values()), END])
    text = text.replace(old.group(0), section) if old else text.rstrip("\n") + "\n\n" + section + "\n"
    open(results, "w").write(text)
    print("written: " + results, file=sys.stderr)


if __name__ == "__main__":
    main()
