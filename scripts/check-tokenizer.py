#!/usr/bin/env python3
"""Compares our tokenizer with the `tokenizers` package on a model's tokenizer.json and a text.

    check-tokenizer.py PROGRAM MODEL TEXT...

PROGRAM is tests/bench/bench_tokenizer as CMake built it. Each TEXT (a .jsonl's "text" fields joined by two newlines,
anything else as it is, either gzipped) is tokenized whole by both, without special tokens, and decoded again; ids and
decoded text have to be equal. Exit status 1 when they are not.
"""

import gzip
import json
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
from tokenizers import Tokenizer


def read_text(path):
    data = pathlib.Path(path).read_bytes()
    if data[:2] == b"\x1f\x8b":
        data = gzip.decompress(data)
    if path.removesuffix(".gz").endswith(".jsonl"):
        return "\n\n".join(json.loads(line)["text"] for line in data.split(b"\n") if line.strip()).encode()
    return data


def where_they_differ(tokenizer, ours, theirs):
    shared = min(len(ours), len(theirs))
    unequal = np.nonzero(ours[:shared] != theirs[:shared])[0]
    at = int(unequal[0]) if len(unequal) else shared
    name = lambda ids: [tokenizer.id_to_token(int(i)) for i in ids[max(at - 3, 0) : at + 5]]
    return f"token {at} of {len(ours)} / {len(theirs)}: ours {name(ours)}, tokenizers {name(theirs)}"


def check(program, model, path):
    tokenizer = Tokenizer.from_file(str(pathlib.Path(model) / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    data = read_text(path)
    text = data.decode("utf-8", "replace")
    theirs = np.array(tokenizer.encode(text, add_special_tokens=False).ids, dtype=np.int32)
    with tempfile.TemporaryDirectory() as folder:
        source, ids = pathlib.Path(folder) / "text", pathlib.Path(folder) / "ids"
        source.write_bytes(data)
        done = subprocess.run([program, model, source, ids], check=True, capture_output=True, text=True)
        ours = np.fromfile(ids, dtype="<i4")
        decoded = ids.with_suffix(".txt").read_bytes().decode("utf-8", "replace")
    print(f"{path}: {done.stdout.strip()}")
    if not np.array_equal(ours, theirs):
        print(f"  ids differ at {where_they_differ(tokenizer, ours, theirs)}")
        return False
    expected = tokenizer.decode(theirs, skip_special_tokens=False)
    if decoded != expected:
        at = next((i for i, (a, b) in enumerate(zip(decoded, expected)) if a != b), min(len(decoded), len(expected)))
        print(f"  ids are equal, decoded text differs at {at}: {decoded[at:at + 20]!r} / {expected[at:at + 20]!r}")
        return False
    print(f"  {len(ours)} ids and the decoded text are equal")
    return True


def main():
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    program, model, *texts = sys.argv[1:]
    results = [check(program, model, path) for path in texts]
    sys.exit(0 if all(results) else 1)


if __name__ == "__main__":
    main()
