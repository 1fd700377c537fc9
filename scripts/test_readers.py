#!/usr/bin/env python3
"""Does the program that a slice was written for compute what matquant computes? Called by test-readers.sh.

    test_readers.py READER MASTER R,R... [MASTER R,R...]... --build FOLDER --work FOLDER --text FILE --rows FILE
                    [--tokens N] [--windows N] [--until TIME] [--slice-limit SECONDS]

READER is mlx, gguf, compressed-tensors, gptq or safetensors; R are the widths, R+PATTERN=R one with layers of another. Slices
are cut, loaded by their reader, and compared with matquant's logits (float32) of the numbers that the file holds. Where a
format cannot hold the slice exactly, these are read out of the file here (readers_files.py), so that the comparison is of
arithmetic alone; what the format cost is what `slice` reports, and the first column here. Compared are

  logits      root of the mean squared difference, divided by that of the logits about their mean
  perplexity  of both, over the same windows of text
  greedy      32 tokens that the reader's own generation continues a text with: matquant's first choice at each place. One
              may differ only where matquant's two best logits are closer than NEAR times the bound (of the spread of the
              logits there): what two of them may be off by. In float32 none may

Bounds (logits), and why:

  float32 (transformers; mlx and llama.cpp told to)  1e-4: only the order of sums differs. Perplexity 0.5 %, as elsewhere.
                                                     (Gemma in mlx-lm: with its one bfloat16 constant made float32, too.)
  llama.cpp in float32 with GELU                     1e-3: ggml looks it up in a table of float16, 2^-11 a number.
  transformers, compressed-tensors                   1e-4: it unpacks weights into the bfloat16 of their scales, and so do we.
  transformers, folders of bfloat16 and float16      1e-4 in float32, which holds their numbers exactly, beside matquant's
                                                     logits of the folder; the numbers must be the f32 folder's, each
                                                     rounded once, by torch, to the nearest.
      as they load                                   float16 has 11 bits a number, and everything is one, also what goes from
                                                     layer to layer: 1e-2. bfloat16 has 8: 2^3 times that.
  gptqmodel, torch backend                           1e-4 in float32, which it is made to take here (readers_programs.py).
      float16                                        1e-2: as transformers. Where the float32 run has numbers beyond float16
                                                     (Gemma 3 270M's activations), bfloat16 is tried instead: it rounds scales
                                                     and weights, too. That is held against transformers in bfloat16 on weights
                                                     rounded like that, as llama.cpp is against its emulation.
  mlx as it loads                                    1e-2: what goes from layer to layer is bfloat16 where a norm or an
                                                     embedding is, 8 bits a number; products with quantized layers are
                                                     float32 beside their float16 scales.
  llama.cpp, F16 file                                1e-2: it rounds activations and its cache to float16.
  llama.cpp, quantized types, OpenBLAS               as float32: built with BLAS, with 32 tokens or more at a time and
      matrices that are not repacked, it unpacks them to float32 (ggml-blas.cpp). This shows what the file holds.
  llama.cpp, quantized types, its kernels            it rounds activations to 8 bits a block before each product with a
      quantized matrix. What that alone does is computed here (emulated_llama_cpp): the same numbers in float32, with the
      inputs of every layer rounded in that way. llama.cpp may be 1.25 times as far from matquant as the emulation is, and
      its perplexity must be the emulation's to 0.5 %. It cannot be nearer the emulation's logits: a sum in another order
      moves an activation across a rounding edge, and a few blocks later nothing is rounded alike. How far apart two are is
      the median of the tokens' distances here: of a thousand tokens some are moved five to ten times as far as the others,
      and others by the emulation than by llama.cpp, or by llama.cpp with and without repacked matrices. So the mean of all
      squares is mostly chance: it may be three times the emulation's. (A word that is chosen otherwise is held against that
      mean, as any token may be such a one.)

And what README.md and docs/formats.md call exact must cost nothing (must_be_exact), and have the slice's own perplexity to
0.5 % where the reader rounds weights.

Perplexity of so few tokens says less where arithmetic is coarse: the number behind +- is the standard error of the difference
(of the tokens' log-likelihoods). One of more than half of the 0.5 % calls for more windows. It takes tokens for independent; in
a window they share what attention reads, so it is rather more.

A row is printed for each, and appended to --rows as JSON. A width that a format refuses is a row, too, and so is arithmetic
that a model's numbers overflow. After --until (seconds since 1970) no slice is begun; those that are left are printed, and
appended to the file `left` in --work. One that takes longer than --slice-limit (0: none) ends this program. The one that is
being read is named in the file `reading` in --work, which stays if this program does not come to its end.
"""
import argparse
import faulthandler
import json
import math
import os
import pathlib
import subprocess
import sys
import time

import numpy as np

import readers_files
import readers_programs

READERS = ["safetensors", "mlx", "gguf", "compressed-tensors", "gptq"]
EXACT, TABLE, HALF, BFLOAT = 1e-4, 1e-3, 1e-2, 1e-2
BFLOAT_THROUGHOUT = 8 * HALF
LARGEST_HALF = 65504
PERPLEXITY = 5e-3
EMULATED, TOGETHER = 1.25, 3
GREEDY, PROMPT = 32, 32  # the prompt: as many as BLAS takes
NEAR = 4  # 2.8 standard deviations of the difference of two numbers that are each off by the bound


class Matquant:
    """matquant's own logits of a folder."""

    def __init__(self, build, folder, bits, work):
        self.program, self.folder, self.bits, self.work = build / "tests/tools/logits", folder, bits, work
        self.known, self.known_nll = {}, {}

    def logits(self, ids):
        given, got = self.work / "ids", self.work / "logits"
        given.write_bytes(np.array(ids, dtype=np.int32).tobytes())
        subprocess.run([self.program, self.folder, given, got] + self.bits, check=True, stderr=subprocess.DEVNULL)
        return np.fromfile(got, dtype=np.float32).reshape(len(ids), -1)

    def window(self, ids):
        """The same, kept: several readers are compared on a window."""
        key = tuple(ids)
        if key not in self.known:
            self.known[key] = self.logits(ids)
        return self.known[key]

    def nll(self, ids):
        """The window's negative log-likelihoods, kept, and not its logits."""
        key = tuple(ids)
        if key not in self.known_nll:
            self.known_nll[key] = nll(self.logits(ids), ids)
        return self.known_nll[key]


def nll(logits, ids):
    result = np.empty(len(ids) - 1)
    for i in range(len(ids) - 1):
        row = logits[i].astype(np.float64)
        top = row.max()
        result[i] = np.log(np.exp(row - top).sum()) + top - row[ids[i + 1]]
    return result


def compare_windows(theirs, ours, windows):
    """Relative difference of the logits, of all tokens together and the median of each token's, and the negative
    log-likelihoods of the tokens by both."""
    parts = [], [], [], []
    for ids in windows:
        a, b = theirs(ids), ours(ids)
        parts[0].append(np.sum((a - b) ** 2, 1, dtype=np.float64))
        parts[1].append(np.sum((b - b.mean(1, keepdims=True)) ** 2, 1, dtype=np.float64))
        parts[2].append(nll(a, ids))
        parts[3].append(nll(b, ids))
    squares, power, *nlls = (np.concatenate(part) for part in parts)
    return math.sqrt(squares.sum() / power.sum()), math.sqrt(np.median(squares / power)), *nlls


def perplexity(nlls):
    return math.exp(nlls.mean())


def compare_greedy(reader, ours, prompt, bound):
    """How many of the tokens that the reader generates are matquant's, and whether the first other one is a near tie. The
    bound is not of this comparison: how far apart the two really are, a wrong choice could always hide behind."""
    chosen = np.array(reader.generate(prompt, GREEDY))
    ids = list(prompt) + chosen.tolist()
    mine = ours.logits(ids)[len(prompt) - 1:-1]
    same = mine.argmax(1) == chosen
    if len(chosen) == GREEDY and same.all():
        return GREEDY, True
    if len(chosen) != GREEDY:
        return len(chosen), False
    at = int(same.argmin())
    return at, bool(mine[at].max() - mine[at][chosen[at]] <= NEAR * bound * mine[at].std())


class Test:
    """Of one master, with one reader."""

    def __init__(self, options, master, rows):
        self.options, self.master, self.work, self.failed, self.rows = options, master, options.work, False, rows
        self.model = os.path.basename(os.path.normpath(master))
        self.config = json.load(open(os.path.join(master, "config.json")))
        self.text_config = self.config.get("text_config", self.config)
        self.given = []  # PATTERN=R of --layer-bits
        from tokenizers import Tokenizer
        self.tokenizer = Tokenizer.from_file(os.path.join(master, "tokenizer.json"))
        self.text = options.text.read_text(errors="replace")[:20 * options.tokens * options.windows]
        ids = self.tokenizer.encode(self.text).ids
        self.tokens = options.tokens
        if options.reader == "mlx" and self.text_config["model_type"] == "gemma2":  # knows no windows of it
            self.tokens = min(self.tokens, self.text_config["sliding_window"])
        windows = [ids[i * self.tokens:(i + 1) * self.tokens] for i in range(options.windows)]
        self.windows = [window for window in windows if len(window) == self.tokens]

    def cut(self, form, output, bits, *more):
        """The report of `slice`; text: why it refused."""
        given = ["--layer-bits=" + pattern for pattern in self.given]
        done = subprocess.run([self.options.build / "matquant", "slice", self.master, "-o", output, "--bits", str(bits),
                               "--format", form, "--force", "--json", "-q", *more, *given], capture_output=True, text=True)
        if done.returncode == 2:
            return done.stderr.strip().removeprefix("matquant: ")
        if done.returncode != 0:
            raise SystemExit(done.stderr)
        return json.loads(done.stdout)

    def row_lengths(self):
        """{name of a layer: the length of its rows}"""
        text = self.text_config
        heads = text["num_attention_heads"]
        head_dim = text.get("head_dim") or text["hidden_size"] // heads
        names = "embed_tokens lm_head q_proj k_proj v_proj gate_proj up_proj".split()
        if text["model_type"] == "phi3":
            names = "embed_tokens lm_head qkv_proj gate_up_proj".split()
        return {**dict.fromkeys(names, text["hidden_size"]), "o_proj": heads * head_dim,
                "down_proj": text["intermediate_size"]}

    def chosen_by_gguf(self, bits):
        """What docs/formats.md says of it: where rows fit no type of 2, 3 or 6 bits, the widest width that is no larger in the
        type that they are stored in. PATTERN=R, in a list."""
        own, most = self.config["quantization_config"], {2: 4, 3: 4, 6: 8}.get(bits)
        if self.options.reader != "gguf" or most is None:
            return []
        widest = max(width for width in own["widths"] if width <= most)
        quantized = "".join(own.get("embeddings", {"layers": []})["layers"])
        names = [name for name, length in self.row_lengths().items() if length % 256 and
                 (name not in ("embed_tokens", "lm_head") or name in quantized)]
        return ["(%s)$=%d" % ("|".join(names), widest)] if names else []

    def must_be_exact(self, bits):
        """What README.md and docs/formats.md say of the formats."""
        own = self.config["quantization_config"]
        symmetric, embeddings = own.get("zero_point") == "symmetric", own.get("embeddings")
        if self.options.reader in ("mlx", "safetensors"):
            return True
        if self.options.reader == "gguf":
            widths = {bits, max(bits, embeddings["min_bits"]) if embeddings else bits}
            widths |= {int(pattern.rpartition("=")[2]) for pattern in self.given}
            exact = {4, 5, 8} if symmetric else {4, 5}
            rows = self.row_lengths().values()
            if all(row % 256 for row in rows):  # no K-quants: 4 bits in Q4_1 in place of 2 and 3, 8 in Q8_0 of 6
                exact |= {2, 3, 6} if symmetric else {2, 3}
            if all((own["group_size"] or row) % 256 == row % 256 == 0 for row in rows):  # K-quants
                exact |= {2, 3, 6} if symmetric else {2}
            return widths <= exact
        if self.options.reader == "compressed-tensors":
            return symmetric and (not embeddings or bits >= embeddings["min_bits"])
        return symmetric and not embeddings

    def row(self, **row):
        row = {"model": self.model, "format": self.options.reader, "text": self.options.text.name,
               "windows": len(self.windows), "tokens": self.tokens, **row}
        with open(self.options.rows, "a") as file:
            file.write(json.dumps(row) + "\n")
        if "refused" in row:
            print("  int%d refused: %s" % (row["bits"], row["refused"]), file=self.rows, flush=True)
            return
        if "overflow" in row:
            print("  int%d %-40s overflows: numbers up to %.3g  %s" %
                  (row["bits"], row["how"], row["overflow"], "ok" if row["ok"] else "FAILED"), file=self.rows, flush=True)
            self.failed |= not row["ok"]
            return
        greedy = "greedy %d of %d" % (row["greedy"], GREEDY)
        if row["greedy"] < GREEDY:
            greedy += ", then a near tie" if row["tie"] else ", then another choice"
        beside = "emulated" if "emulated" in row else "matquant"
        logits = "logits %.1e (bound %.1e)" % (row["error"], row["bound"])
        if "median" in row:
            logits = "logits %.1e, median %.1e (bound %.1e)" % (row["error"], row["median"], row["bound"])
        print("  int%d %-40s cost %.1e  %s  perplexity %.4f, %s %.4f (%+.3f +- %.3f %%)  %s  %s" %
              (row["bits"], row["how"], row["cost"], logits, row["perplexity"], beside, row[beside],
               100 * row["ratio"], 100 * row["noise"], greedy, "ok" if row["ok"] else "FAILED"), file=self.rows, flush=True)
        self.failed |= not row["ok"]

    def check(self, bits, how, reader, bound, cost, weights=None, emulation=None, exact=None):
        """weights, a Matquant: the numbers in the file where they are not the slice's. exact: must they be the slice's?"""
        how = ", ".join([how] + self.given)
        ours, must = weights or self.slice, self.must_be_exact(bits) if exact is None else exact
        error, median, theirs, wanted = compare_windows(reader.logits, ours.window, self.windows)
        row = {"bits": bits, "how": how, "reader": reader.name, "cost": cost, "error": error,
               "perplexity": perplexity(theirs), "matquant": perplexity(wanted)}
        kept = cost == 0
        if weights is not None:
            row["slice"] = perplexity(np.concatenate([self.slice.nll(ids) for ids in self.windows]))
            kept = kept and abs(row["perplexity"] / row["slice"] - 1) <= PERPLEXITY
        if emulation is not None:
            row["emulated_error"], apart, wanted, _ = compare_windows(emulation.logits, ours.window, self.windows)
            bound, row["emulated"], row["median"] = EMULATED * apart, perplexity(wanted), median
        same, tie = compare_greedy(reader, ours, self.windows[0][:PROMPT],
                                   bound if emulation is None else EMULATED * row["emulated_error"])
        row.update(bound=bound, ratio=math.expm1((theirs - wanted).mean()), greedy=same, tie=tie,
                   noise=(theirs - wanted).std() / math.sqrt(len(wanted)))
        together = error <= TOGETHER * row.get("emulated_error", error)
        row["ok"] = bool(row.get("median", error) <= bound and together and abs(row["ratio"]) <= PERPLEXITY and
                         (same == GREEDY if bound in (EXACT, TABLE) else tie) and (kept or not must))
        self.row(**row)

    def overflows(self, bits, how, exact, reader):
        """Whether the reader, of float16, makes no numbers of the text. It may where the same in float32 is beyond float16."""
        if np.isfinite(reader.logits(self.windows[0])).all():
            return False
        largest = readers_programs.largest_number(exact, self.windows[0])
        self.row(bits=bits, how=how, reader=reader.name, overflow=largest, ok=largest > LARGEST_HALF)
        return True

    def check_vocabulary(self, reader):
        """The vocabulary came along in the GGUF file: the same ids from the same text."""
        part = self.text[:4000]
        if reader.model.tokenize(part.encode(), add_bos=True, special=True) != self.tokenizer.encode(part).ids:
            print("llama.cpp makes other tokens of the text", file=self.rows, flush=True)
            self.failed = True

    def check_parts(self, folder, reader):
        """What is not quantized because it is no language model's came along as well."""
        wrong = readers_files.parts_otherwise(folder, reader.model)
        if wrong:
            print("%s: tensors that the reader has otherwise: %s" % (reader.name, ", ".join(wrong)), file=self.rows, flush=True)
            self.failed = True

    def check_types(self, reader, half):
        """mlx-lm computes in float32 beside the float16 scales, unless all is float16: as docs/formats.md says."""
        types, wanted = readers_programs.mlx_types(reader), "float16" if half else "float32"
        if types != {wanted}:
            print("%s: computes in %s, not in %s" % (reader.name, ", ".join(sorted(types)), wanted), file=self.rows, flush=True)
            self.failed = True

    def run_mlx(self, bits, output, cost):
        reader = readers_programs.mlx(output, False)
        self.check_types(reader, self.config.get("dtype", self.config.get("torch_dtype")) == "float16")
        self.check(bits, "bfloat16, as it loads", reader, BFLOAT, cost)
        self.check(bits, "float32", readers_programs.mlx(output, True), EXACT, cost)
        if bits == 4 and not self.text_config["model_type"].startswith("gemma"):  # whose activations overflow
            half = str(self.work / "half")
            self.cut("mlx", half, bits, "--dtype", "f16")
            self.check_types(readers_programs.mlx(half, False), True)

    def matquant(self, bits, weights=None):
        """matquant's logits of the slice; of these numbers instead."""
        if weights is None:
            widths = [str(bits)] + self.chosen_by_gguf(bits) + self.given
            return Matquant(self.options.build, self.master, widths, self.work)
        return Matquant(self.options.build, self.plain(bits, weights), [], self.work)

    def plain(self, bits, weights, name="plain"):
        """A folder of float32 weights: the slice's, with these in place of its."""
        folder = str(self.work / name)
        chosen = ["--layer-bits=" + pattern for pattern in self.chosen_by_gguf(bits)]
        self.cut("safetensors", folder, bits, "--dtype", "f32", *chosen)
        readers_files.put_weights(folder, weights)
        return folder

    def llama_cpp(self, path, exact):
        return readers_programs.llama_cpp(path, max(self.options.tokens, PROMPT + GREEDY), exact)

    def llama_cpp_bound(self):
        gemma = self.text_config["model_type"].startswith("gemma")
        name = self.text_config.get("hidden_activation" if gemma else "hidden_act", "gelu" if gemma else "")
        return TABLE if name.startswith("gelu") else EXACT

    def run_plain_gguf(self, bits):
        """The slice's very numbers: what is not the types' arithmetic."""
        for dtype in ("f32", "f16"):
            output = str(self.work / "plain.gguf")
            report = self.cut("gguf", output, bits, "--dtype", dtype)
            if isinstance(report, str):  # it is not the width that is refused
                return
            cost = report["relative_error"]
            if dtype == "f32":
                self.check(bits, "F32, OpenBLAS", self.llama_cpp(output, True), self.llama_cpp_bound(), cost, exact=True)
            else:
                self.check(bits, "F16, its kernels", self.llama_cpp(output, False), HALF, cost, exact=False)

    def run_gguf(self, bits, output, report):
        cost, matrices = report["relative_error"], readers_files.gguf_matrices(output, self.text_config)
        kinds = readers_files.gguf_kinds(matrices)
        if self.chosen_by_gguf(bits):
            kinds += ", %.3g bits" % report["mean_bits"]
        values = {prefix: matrix.weights for prefix, matrix in matrices.items()}
        ours = self.matquant(bits, values) if cost > 0 else None
        self.check(bits, kinds + ", OpenBLAS", self.llama_cpp(output, True), self.llama_cpp_bound(), cost, ours)
        reader = self.llama_cpp(output, False)
        emulation = readers_programs.emulated_llama_cpp(ours.folder if ours else self.plain(bits, {}), matrices)
        self.check(bits, kinds + ", its kernels", reader, None, cost, ours, emulation)
        self.check_vocabulary(reader)

    def run_gptq(self, bits, output, cost):
        weights = readers_files.folder_weights(output, bits, "gptq") if cost > 0 else None
        ours = self.matquant(bits, weights) if cost > 0 else None
        exact = readers_programs.gptqmodel(output, "float32")
        self.check_parts(output, exact)
        self.check(bits, "float32", exact, EXACT, cost, ours)
        reader = readers_programs.gptqmodel(output, "float16")
        if not self.overflows(bits, "float16", exact, reader):
            self.check(bits, "float16", reader, HALF, cost, ours)
            return
        rounded = readers_files.folder_weights(output, bits, "gptq", "bfloat16")
        emulation = readers_programs.transformers(self.plain(bits, rounded, "rounded"), "bfloat16")
        self.check(bits, "bfloat16", readers_programs.gptqmodel(output, "bfloat16"), None, cost, ours, emulation)

    def run_safetensors(self, bits, output, cost):
        """The folder of float32, and those of 16 bits: in float32, which holds their numbers, and in their own type."""
        self.check(bits, "f32 in float32", readers_programs.transformers(output), EXACT, cost)
        for dtype, name, bound in (("bf16", "bfloat16", BFLOAT_THROUGHOUT), ("f16", "float16", HALF)):
            folder = str(self.work / dtype)
            cost = self.cut("safetensors", folder, bits, "--dtype", dtype)["relative_error"]
            wrong = readers_files.rounded_otherwise(output, folder, name)
            if wrong:
                print("%s: not the slice's numbers rounded: %s" % (dtype, ", ".join(wrong)), file=self.rows, flush=True)
                self.failed = True
            ours, exact = Matquant(self.options.build, folder, [], self.work), readers_programs.transformers(folder)
            self.check_parts(folder, exact)
            self.check(bits, dtype + " in float32", exact, EXACT, cost, ours, exact=False)
            how, reader = "%s in %s, as it loads" % (dtype, name), readers_programs.transformers(folder, "auto")
            assert str(reader.model.dtype) == "torch." + name
            if not self.overflows(bits, how, exact, reader):
                self.check(bits, how, reader, bound, cost, ours, exact=False)

    def goes_by_other_factors(self):
        """Of longrope's factors mlx-lm knows the long ones alone, which `slice` says."""
        scaling = self.text_config.get("rope_scaling") or {}
        return self.options.reader == "mlx" and scaling.get("short_factor") != scaling.get("long_factor")

    def run(self, widths):
        if self.goes_by_other_factors():
            print("  mlx-lm has not longrope's short factors", file=self.rows, flush=True)
            return
        bits, *self.given = widths.split("+")
        bits, name = int(bits), self.options.reader
        output = str(self.work / ("slice.gguf" if name == "gguf" else "slice"))
        report = self.cut(name, output, bits, *(["--dtype", "f32"] if name == "safetensors" else []))
        refused = isinstance(report, str)
        if refused:
            self.row(bits=bits, refused=report)
        self.slice = self.matquant(bits)
        if name == "gguf":
            if not refused:
                self.run_gguf(bits, output, report)
            if refused or bits == 4:
                self.run_plain_gguf(bits)
            return
        if refused:
            return
        cost, ours = report["relative_error"], None
        if name == "compressed-tensors":
            ours = self.matquant(bits, readers_files.folder_weights(output, bits, name))
        if name == "mlx":
            self.run_mlx(bits, output, cost)
        elif name == "safetensors":
            self.run_safetensors(bits, output, cost)
        elif name == "compressed-tensors":
            reader = readers_programs.compressed_tensors(output)
            self.check_parts(output, reader)
            self.check(bits, "float32", reader, EXACT, cost, ours)
        else:
            self.run_gptq(bits, output, cost)


def in_time(options, test, widths):
    """Those of the widths that there is time for, each to be read before the next is asked for."""
    reading = options.work / "reading"
    for bits in widths.split(","):
        name = "%s, %s, int%s" % (test.model, options.reader, bits)
        if time.time() > options.until:
            print("  int%s not read: no time is left" % bits, file=test.rows, flush=True)
            with open(options.work / "left", "a") as left:
                left.write(name + "\n")
            continue
        reading.write_text(name)
        if options.slice_limit > 0:
            faulthandler.dump_traceback_later(options.slice_limit, file=test.rows, exit=True)  # out of any library
        yield bits
        faulthandler.cancel_dump_traceback_later()
        reading.unlink()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("reader", choices=READERS)
    parser.add_argument("masters", nargs="+", metavar="MASTER R,R...")
    for name in ("build", "work", "text", "rows"):
        parser.add_argument("--" + name, type=pathlib.Path, required=True)
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--windows", type=int, default=4)
    parser.add_argument("--until", type=float, default=math.inf)
    parser.add_argument("--slice-limit", type=float, default=0)
    options = parser.parse_args()
    rows = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # some readers talk on stdout
    failed = False
    for master, widths in zip(options.masters[::2], options.masters[1::2]):
        test = Test(options, master, rows)
        print("%s, %s:" % (test.model, options.reader), file=rows, flush=True)
        for bits in in_time(options, test, widths):
            test.run(bits)
        failed |= test.failed
    sys.stderr.flush()
    os._exit(1 if failed else 0)  # llama-cpp-python trips over its own clean-up at exit


if __name__ == "__main__":
    main()
