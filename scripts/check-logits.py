#!/usr/bin/env python3
"""Compares our logits with those of transformers on a checkpoint, by hand: too large for the test suite.

    pip install torch transformers
    scripts/check-logits.py LOGITS-PROGRAM MODEL TEXT [--tokens 512]

LOGITS-PROGRAM is build/tests/tools/logits. Exits with 1 when a logit is off by more than 1e-4 of the largest. TEXT is
a file of natural text: on random ids a network is here and there so ill-conditioned that two float32 programs differ
by more, and both from a float64 one.
"""

import argparse
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


def token_ids(model, text, count):
    tokenizer = AutoTokenizer.from_pretrained(model)
    ids = tokenizer(pathlib.Path(text).read_text(errors="replace")[: 20 * count]).input_ids
    assert len(ids) >= count, "the text is too short"
    return np.array(ids[:count], dtype=np.int32)


def theirs(model, ids):
    network = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32, attn_implementation="eager")
    with torch.no_grad():
        return network(torch.tensor(ids[None].astype(np.int64))).logits[0].numpy()


def ours(program, model, ids):
    with tempfile.TemporaryDirectory() as folder:
        given, got = pathlib.Path(folder, "ids"), pathlib.Path(folder, "logits")
        given.write_bytes(ids.tobytes())
        subprocess.run([program, model, given, got], check=True)
        return np.fromfile(got, dtype=np.float32).reshape(len(ids), -1)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("model")
    parser.add_argument("text")
    parser.add_argument("--tokens", type=int, default=512)
    options = parser.parse_args()
    ids = token_ids(options.model, options.text, options.tokens)
    mine, reference = ours(options.program, options.model, ids), theirs(options.model, ids)
    largest = np.abs(reference).max()
    worst = np.abs(mine - reference).max() / largest
    agree = (mine.argmax(1) == reference.argmax(1)).mean()
    print(f"{options.model}: {len(ids)} tokens, largest logit {largest:.2f}, worst difference {worst:.2e} of it, "
          f"same largest {agree:.4f}")
    sys.exit(0 if worst <= 1e-4 else 1)


if __name__ == "__main__":
    main()
