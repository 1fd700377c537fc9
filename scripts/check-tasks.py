#!/usr/bin/env python3
"""Compares the log-likelihoods of `matquant eval --tasks` with those of transformers, by hand: too slow for the tests.

    pip install torch transformers
    scripts/check-tasks.py MATQUANT MODEL TASKS... [--items 50] [--tolerance 0.005]

The first items of each task file go through transformers in float32 on the CPU, each choice's whole sequence, with
tokens made by the model's own tokenizer as lm-evaluation-harness makes them. Prints the largest difference of a
choice's log-likelihood for each file, and exits with 1 when one is larger than the tolerance (in nats), when a
continuation has another number of tokens or bytes, when an answer (of acc or acc_norm) is another and the two choices
are not tied within the tolerance, or when an accuracy is not that of the log-likelihoods.
"""

import argparse
import gzip
import json
import pathlib
import subprocess
import sys
import tempfile

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


def read_items(path, count):
    data = pathlib.Path(path).read_bytes()
    text = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    return [json.loads(line) for line in text.decode().split("\n") if line.strip()][:count]


def encode_pair(tokenizer, context, continuation):
    spaces = len(context) - len(context.rstrip())
    if spaces:
        context, continuation = context[:-spaces], context[-spaces:] + continuation
    before = tokenizer(context).input_ids
    return before, tokenizer(context + continuation).input_ids[len(before) :]


def log_likelihoods(network, pairs):
    """Of (context tokens, continuation tokens): whole sequences in one batch, padded on the right, where causal
    attention does not look."""
    longest = network.config.max_position_embeddings
    inputs = [(before + after)[-(longest + 1) :][:-1] for before, after in pairs]
    ids = torch.zeros(len(pairs), max(map(len, inputs)), dtype=torch.long)
    for row, tokens in zip(ids, inputs):
        row[: len(tokens)] = torch.tensor(tokens)
    cap = getattr(network.config, "final_logit_softcapping", None)
    results = []
    with torch.no_grad():
        hidden = network.model(ids).last_hidden_state
        for row, tokens, (_, after) in zip(hidden, inputs, pairs):
            logits = network.lm_head(row[len(tokens) - len(after) : len(tokens)])
            logits = cap * torch.tanh(logits / cap) if cap else logits
            results.append(torch.log_softmax(logits, -1).gather(1, torch.tensor(after)[:, None]).double().sum().item())
    return results


def ours(program, model, path, count):
    with tempfile.TemporaryDirectory() as folder:
        items = pathlib.Path(folder, "items.jsonl")
        command = [program, "eval", model, "--tasks", path, "--max-items", str(count), "--items", items, "--json", "-q"]
        result = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        return result, [json.loads(line) for line in items.read_text().splitlines()]


def best(values):
    return max(range(len(values)), key=values.__getitem__)


def is_other(answer, theirs, tolerances):
    """Whether an answer is not that of these values, by more than what one of the two may be off."""
    chosen = best(theirs)
    return answer is None or theirs[chosen] - theirs[answer] > max(tolerances[chosen], tolerances[answer])


def compare(options, network, tokenizer, path):
    result, mine = ours(options.matquant, options.model, path, options.items)
    items = read_items(path, options.items)
    worst, others, tokens_differ, right = 0.0, [0, 0], 0, [0, 0]
    assert len(mine) == len(items), "another number of items"
    for item, row in zip(items, mine):
        pairs = [encode_pair(tokenizer, c["context"], c["continuation"]) for c in item["choices"]]
        theirs = log_likelihoods(network, pairs)
        sizes = [len(c["continuation"].encode()) for c in item["choices"]]
        tokens_differ += row["tokens"] != [len(after) for _, after in pairs] or row["bytes"] != sizes
        worst = max(worst, *(abs(a - b) for a, b in zip(theirs, row["loglikelihood"])))
        for kind, (key, units) in enumerate((("answer", [1] * len(sizes)), ("answer_norm", sizes))):
            others[kind] += is_other(row[key], [a / unit for a, unit in zip(theirs, units)],
                                     [options.tolerance / unit for unit in units])
        right[0] += best(row["loglikelihood"]) == item["gold"]
        right[1] += best([a / b for a, b in zip(row["loglikelihood"], sizes)]) == item["gold"]
    task = result["tasks"][0]
    sums = all(abs(task[key] - n / len(items)) < 1e-12 for key, n in zip(("acc", "acc_norm"), right))
    print(f"{task['task']}: {len(items)} items, {task['choices']} choices, largest difference {worst:.2e}, "
          f"{others[0]} other answers ({others[1]} by acc_norm), {tokens_differ} items with other tokens, "
          f"acc {task['acc']:.4f}, acc_norm {task['acc_norm']:.4f}", flush=True)
    return worst <= options.tolerance and tokens_differ == 0 and others == [0, 0] and sums


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("matquant")
    parser.add_argument("model")
    parser.add_argument("tasks", nargs="+")
    parser.add_argument("--items", type=int, default=50)
    parser.add_argument("--tolerance", type=float, default=0.005)
    options = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    network = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32, attn_implementation="eager")
    network.eval()
    good = [compare(options, network, tokenizer, path) for path in options.tasks]
    sys.exit(0 if all(good) else 1)


if __name__ == "__main__":
    main()
