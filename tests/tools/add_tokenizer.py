#!/usr/bin/env python3
"""add_tokenizer.py KIND FOLDER: gives a model a small tokenizer of that kind, with as many tokens as its config.json says, and
a chat template. Kinds are GGUF's names of what splits a text: gpt-2, smollm, llama-bpe, smaug-bpe, qwen2; dolma2 (OLMo 2's) and
phi-4 say what smaug-bpe says as published conversions of tiktoken's say it. llama2 and gemma stand for SentencePiece's two, and
llama-v5 for llama2 as transformers 5 writes it."""
import json
import pathlib
import sys

PATTERN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")


def byte_level(use_regex):
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": use_regex}


def split_then_bytes(numbers, behavior="Isolated", invert=False):
    split = {"type": "Split", "pattern": {"Regex": PATTERN % numbers}, "behavior": behavior, "invert": invert}
    return {"type": "Sequence", "pretokenizers": [split, byte_level(False)]}


PRE_TOKENIZERS = {
    "gpt-2": byte_level(True),
    "smollm": {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, byte_level(True)]},
    "llama-bpe": split_then_bytes(r"\p{N}{1,3}"),
    "smaug-bpe": split_then_bytes(r"\p{N}{1,3}"),
    "qwen2": split_then_bytes(r"\p{N}"),
    "dolma2": split_then_bytes(r"\p{N}{1,3}", "Removed", True),
    "phi-4": split_then_bytes(r"\p{N}{1,3}", "Removed", True),
    "llama2": None,
    "llama-v5": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False},
    "gemma": {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False},
}
MARK = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
MARKED = ("gemma", "llama2", "llama-v5")
TIKTOKEN = ("dolma2", "phi-4")
NORMALIZERS = {"gemma": MARK, "qwen2": {"type": "NFC"},
               "llama2": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, MARK]}}
TEMPLATE = {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}},
                                                     {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [], "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}}


def main():
    kind, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    config = json.loads((folder / "config.json").read_text())
    count = config.get("text_config", config)["vocab_size"]
    special = ["<unk>", "<s>", "</s>"]
    merges = [["a", "b"], ["c", "d"], ["ab", "cd"]]
    letters = [chr(code) for code in range(ord("!"), ord("!") + count - len(special) - len(merges))]
    letters[-5:] = "abcd" + ("▁" if kind in MARKED else "Ġ")
    tokens = special + list(dict.fromkeys(letters)) + ["".join(merge) for merge in merges]
    tokens += ["<extra%d>" % i for i in range(count - len(tokens))]
    tokenizer = {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [{"id": i, "content": text, "single_word": False, "lstrip": kind == "phi-4",
                          "rstrip": kind == "phi-4", "normalized": False, "special": True}
                         for i, text in enumerate(special)],
        "normalizer": NORMALIZERS.get(kind), "pre_tokenizer": PRE_TOKENIZERS[kind],
        "post_processor": None if kind in TIKTOKEN else TEMPLATE, "decoder": None,
        "model": {"type": "BPE", "dropout": None, "unk_token": None if kind in TIKTOKEN else "<unk>",
                  "continuing_subword_prefix": "" if kind in TIKTOKEN else None, "end_of_word_suffix": None,
                  "fuse_unk": kind not in TIKTOKEN, "byte_fallback": kind in MARKED,
                  "ignore_merges": kind == "llama-bpe", "vocab": {text: i for i, text in enumerate(tokens)},
                  "merges": merges},
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    (folder / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<s>", "eos_token": "</s>"}))
    (folder / "chat_template.jinja").write_text("{% for m in messages %}<s>{{ m['content'] }}</s>{% endfor %}\n")


main()
