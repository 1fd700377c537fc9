#!/usr/bin/env python3
"""Turn one GGUF file (Llama or Gemma 3 text) into a Hugging Face model folder in bfloat16.

The folder holds model.safetensors, config.json, tokenizer.json, tokenizer_config.json,
special_tokens_map.json, generation_config.json, chat_template.jinja (where the GGUF file has a
template) and SOURCE.md with what the file says of its licence and origin.

Three things of the GGUF convention are undone: llama.cpp interleaves the rows of the query and
key projections of the `llama` architecture for its own rotary embedding, it stores Gemma's norm
weights with their 1 already added, and it stores a SentencePiece BPE as scores without merges.
"""

import argparse
import hashlib
import json
import pathlib
import struct
import sys

import gguf
import numpy as np
import tokenizers

TOKEN_TYPE_CONTROL = 3
TOKEN_TYPE_USER_DEFINED = 4

TOP_TENSORS = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}

BLOCK_TENSORS = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm",
}

ARCH_TENSORS = {
    "llama": {"ffn_norm": "post_attention_layernorm"},
    "gemma3": {
        "attn_q_norm": "self_attn.q_norm",
        "attn_k_norm": "self_attn.k_norm",
        "post_attention_norm": "post_attention_layernorm",
        "ffn_norm": "pre_feedforward_layernorm",
        "post_ffw_norm": "post_feedforward_layernorm",
    },
}


class Metadata:
    """The key-value section of a GGUF file, with values as Python objects."""

    def __init__(self, reader):
        self._fields = reader.fields

    def get(self, key, default=None):
        field = self._fields.get(key)
        if field is None:
            return default
        value = field.contents()
        # A float32 such as 1e-05 is meant as the short decimal, not as its float64 expansion.
        if field.types[-1] == gguf.GGUFValueType.FLOAT32 and isinstance(value, float):
            value = float(str(np.float32(value)))
        return value

    def need(self, key):
        value = self.get(key)
        if value is None:
            raise SystemExit(f"gguf_to_hf: the file has no key {key}")
        return value

    def scalars(self):
        """Everything of the general.* section that is not an array."""
        for key, field in self._fields.items():
            if key.startswith("general.") and field.types[0] != gguf.GGUFValueType.ARRAY:
                yield key, self.get(key)


def to_bfloat16(x):
    """float32 array -> uint16 array of bfloat16 bits, rounded to nearest, ties to even."""
    bits = np.ascontiguousarray(x, dtype=np.float32).view(np.uint32)
    if not np.isfinite(x).all():
        raise SystemExit("gguf_to_hf: a tensor holds NaN or Inf")
    rounded = (bits.astype(np.uint64) + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return rounded.astype(np.uint16)


def unpermute_rows(w, n_heads):
    """[n_heads * head_dim, in]: llama.cpp's interleaved rows -> the two halves that HF rotates."""
    rows, cols = w.shape
    half = rows // n_heads // 2
    return w.reshape(n_heads, half, 2, cols).swapaxes(1, 2).reshape(rows, cols)


def hf_name(name, arch):
    if name in TOP_TENSORS:
        return TOP_TENSORS[name]
    parts = name.split(".")
    if len(parts) == 4 and parts[0] == "blk":
        module = {**BLOCK_TENSORS, **ARCH_TENSORS[arch]}.get(parts[2])
        if module and parts[3] == "weight":
            return f"model.layers.{int(parts[1])}.{module}.weight"
    raise SystemExit(f"gguf_to_hf: no Hugging Face name known for tensor {name}")


def heads_of(meta, arch):
    """{kind of tensor: heads} of the matrices whose rows llama.cpp interleaves."""
    if arch != "llama":
        return {}
    return {"attn_q": meta.need("llama.attention.head_count"),
            "attn_k": meta.get("llama.attention.head_count_kv")}


def kind_of(name):
    """attn_q of blk.3.attn_q.weight; nothing for tensors outside of the blocks."""
    return name.split(".")[2] if name.startswith("blk.") else ""


def plain_tensors(reader, meta, arch):
    """All tensors, one after the other: (Hugging Face's name, float32 array)."""
    heads = heads_of(meta, arch)
    for tensor in reader.tensors:
        if tensor.name == "rope_freqs.weight":
            raise SystemExit("gguf_to_hf: rope_freqs (scaled rotary embedding) is not supported")
        w = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        w = w.reshape(tuple(int(n) for n in reversed(tensor.shape)))
        if kind_of(tensor.name) in heads:
            w = unpermute_rows(w, heads[kind_of(tensor.name)])
        if arch == "gemma3" and tensor.name.endswith("_norm.weight"):
            w = w - np.float32(1)
        yield hf_name(tensor.name, arch), w


def convert_tensors(reader, meta, arch):
    """All tensors as {name: (shape, bytes in bfloat16)}."""
    return {name: (w.shape, to_bfloat16(w).astype("<u2").tobytes())
            for name, w in plain_tensors(reader, meta, arch)}


def llama_config(meta, tied):
    hidden_size = meta.need("llama.embedding_length")
    n_heads = meta.need("llama.attention.head_count")
    return {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": meta.need("tokenizer.ggml.bos_token_id"),
        "eos_token_id": meta.need("tokenizer.ggml.eos_token_id"),
        "head_dim": meta.get("llama.rope.dimension_count", hidden_size // n_heads),
        "hidden_act": "silu",
        "hidden_size": hidden_size,
        "initializer_range": 0.02,
        "intermediate_size": meta.need("llama.feed_forward_length"),
        "max_position_embeddings": meta.need("llama.context_length"),
        "mlp_bias": False,
        "model_type": "llama",
        "num_attention_heads": n_heads,
        "num_hidden_layers": meta.need("llama.block_count"),
        "num_key_value_heads": meta.get("llama.attention.head_count_kv", n_heads),
        "pad_token_id": meta.get("tokenizer.ggml.padding_token_id"),
        "pretraining_tp": 1,
        "rms_norm_eps": meta.need("llama.attention.layer_norm_rms_epsilon"),
        "rope_scaling": None,
        "rope_theta": meta.get("llama.rope.freq_base", 10000.0),
        "tie_word_embeddings": tied,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "vocab_size": len(meta.need("tokenizer.ggml.tokens")),
    }


def gemma3_config(meta, tied):
    n_layers = meta.need("gemma3.block_count")
    head_dim = meta.need("gemma3.attention.key_length")
    # GGUF names neither the pattern (every sixth layer is global), the local rotary base nor the
    # query scale: all Gemma 3 models up to 12B have these, see the Gemma 3 report, section 2.
    pattern = 6
    kinds = ["full_attention" if (i + 1) % pattern == 0 else "sliding_attention"
             for i in range(n_layers)]
    return {
        "_sliding_window_pattern": pattern,
        "architectures": ["Gemma3ForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "attn_logit_softcapping": None,
        "bos_token_id": meta.need("tokenizer.ggml.bos_token_id"),
        "eos_token_id": meta.need("tokenizer.ggml.eos_token_id"),
        "final_logit_softcapping": None,
        "head_dim": head_dim,
        "hidden_activation": "gelu_pytorch_tanh",
        "hidden_size": meta.need("gemma3.embedding_length"),
        "initializer_range": 0.02,
        "intermediate_size": meta.need("gemma3.feed_forward_length"),
        "layer_types": kinds,
        "max_position_embeddings": meta.need("gemma3.context_length"),
        "model_type": "gemma3_text",
        "num_attention_heads": meta.need("gemma3.attention.head_count"),
        "num_hidden_layers": n_layers,
        "num_key_value_heads": meta.need("gemma3.attention.head_count_kv"),
        "pad_token_id": meta.get("tokenizer.ggml.padding_token_id"),
        "query_pre_attn_scalar": head_dim,
        "rms_norm_eps": meta.need("gemma3.attention.layer_norm_rms_epsilon"),
        "rope_local_base_freq": 10000.0,
        "rope_scaling": None,
        "rope_theta": meta.need("gemma3.rope.freq_base"),
        "sliding_window": meta.need("gemma3.attention.sliding_window"),
        "tie_word_embeddings": tied,
        "torch_dtype": "bfloat16",
        "use_bidirectional_attention": False,
        "use_cache": True,
        "vocab_size": len(meta.need("tokenizer.ggml.tokens")),
    }


def added_tokens(tokens, types):
    """Control and user-defined tokens: cut out of the text before anything else happens.

    llama.cpp calls Gemma's <unused...> control tokens; they are ordinary user-defined ones.
    """
    out = []
    for i, (token, kind) in enumerate(zip(tokens, types)):
        if kind in (TOKEN_TYPE_CONTROL, TOKEN_TYPE_USER_DEFINED):
            special = kind == TOKEN_TYPE_CONTROL and not token.startswith("<unused")
            out.append({"id": i, "content": token, "single_word": False, "lstrip": False,
                        "rstrip": False, "normalized": False, "special": special})
    return out


def bpe_model(vocab, merges, **changes):
    model = {"type": "BPE", "dropout": None, "unk_token": None,
             "continuing_subword_prefix": None, "end_of_word_suffix": None, "fuse_unk": False,
             "byte_fallback": False, "ignore_merges": False, "vocab": vocab, "merges": merges}
    model.update(changes)
    return model


def bos_template(meta):
    """A post-processor that puts <bos> before each sequence, where the file asks for one."""
    if not meta.get("tokenizer.ggml.add_bos_token", False):
        return None
    bos_id = meta.need("tokenizer.ggml.bos_token_id")
    bos = meta.need("tokenizer.ggml.tokens")[bos_id]

    def piece(name, type_id):
        if name == bos:
            return {"SpecialToken": {"id": bos, "type_id": type_id}}
        return {"Sequence": {"id": name, "type_id": type_id}}

    return {"type": "TemplateProcessing",
            "single": [piece(bos, 0), piece("A", 0)],
            "pair": [piece(bos, 0), piece("A", 0), piece(bos, 1), piece("B", 1)],
            "special_tokens": {bos: {"id": bos, "ids": [bos_id], "tokens": [bos]}}}


def byte_level_tokenizer(meta):
    """GGUF model `gpt2`: byte-level BPE. `smollm` splits digits one by one, then as GPT-2."""
    pre = meta.need("tokenizer.ggml.pre")
    if pre != "smollm":
        raise SystemExit(f"gguf_to_hf: pre-tokenizer {pre} is not known (known: smollm)")
    tokens = meta.need("tokenizer.ggml.tokens")
    vocab = {token: i for i, token in enumerate(tokens)}
    merges = [m.split(" ") for m in meta.need("tokenizer.ggml.merges")]
    for left, right in merges:
        if left + right not in vocab:
            raise SystemExit(f"gguf_to_hf: merge {left} {right} makes a token that is not there")
    return {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": added_tokens(tokens, meta.need("tokenizer.ggml.token_type")),
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Digits", "individual_digits": True},
            {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True,
             "use_regex": True}]},
        "post_processor": bos_template(meta),
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True,
                    "use_regex": True},
        "model": bpe_model(vocab, merges),
    }


def merges_from_scores(vocab, scores):
    """Every way to put a token together from two others, best score of the result first.

    Ties go to the longer left part, then to the longer right part, then to the smaller ids, which
    is the order of the converter in `transformers` for SentencePiece models.
    """
    merges = []
    for token, index in vocab.items():
        pairs = [(token[:i], token[i:]) for i in range(1, len(token))]
        pairs = [(a, b) for a, b in pairs if a in vocab and b in vocab]
        pairs.sort(key=lambda p: (vocab[p[0]], vocab[p[1]]))
        merges.extend((scores[index], a, b) for a, b in pairs)
    merges.sort(key=lambda m: (m[0], len(m[1]), len(m[2])), reverse=True)
    return [[a, b] for _, a, b in merges]


def gemma_tokenizer(meta):
    """GGUF model `llama` with no space prefix: SentencePiece BPE with byte fallback, as Gemma's."""
    if meta.get("tokenizer.ggml.add_space_prefix", True):
        raise SystemExit("gguf_to_hf: a SentencePiece vocabulary with a space prefix is not known")
    space = "\u2581"
    types = meta.need("tokenizer.ggml.token_type")
    # llama.cpp writes user-defined tokens with plain spaces, tokenizer.json as SentencePiece does.
    tokens = [token.replace(" ", space) if kind == TOKEN_TYPE_USER_DEFINED else token
              for token, kind in zip(meta.need("tokenizer.ggml.tokens"), types)]
    # SentencePiece gives these score 0, the best there is; llama.cpp overwrites it with -1000.
    scores = [0.0 if kind in (TOKEN_TYPE_CONTROL, TOKEN_TYPE_USER_DEFINED) else float(score)
              for score, kind in zip(meta.need("tokenizer.ggml.scores"), types)]
    vocab = {token: i for i, token in enumerate(tokens)}
    if len(vocab) != len(tokens):
        raise SystemExit("gguf_to_hf: the vocabulary has a token twice")
    return {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": added_tokens(tokens, types),
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": space},
        "pre_tokenizer": {"type": "Split", "pattern": {"String": " "},
                          "behavior": "MergedWithPrevious", "invert": False},
        "post_processor": bos_template(meta),
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": space}, "content": " "},
            {"type": "ByteFallback"}, {"type": "Fuse"}]},
        "model": bpe_model(vocab, merges_from_scores(vocab, scores), fuse_unk=True,
                           byte_fallback=True,
                           unk_token=tokens[meta.need("tokenizer.ggml.unknown_token_id")]),
    }


ARCHITECTURES = {
    "llama": (llama_config, byte_level_tokenizer, "PreTrainedTokenizerFast"),
    "gemma3": (gemma3_config, gemma_tokenizer, "GemmaTokenizerFast"),
}


def tokenizer_config(meta, tokenizer, tokenizer_class):
    tokens = meta.need("tokenizer.ggml.tokens")
    named = {f"{name}_token": tokens[meta.get(f"tokenizer.ggml.{key}_token_id")]
             for name, key in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"),
                               ("pad", "padding"))
             if meta.get(f"tokenizer.ggml.{key}_token_id") is not None}
    decoder = {str(t["id"]): {k: v for k, v in t.items() if k != "id"}
               for t in tokenizer["added_tokens"]}
    config = {"add_bos_token": bool(meta.get("tokenizer.ggml.add_bos_token", False)),
              "add_eos_token": bool(meta.get("tokenizer.ggml.add_eos_token", False)),
              "added_tokens_decoder": decoder, "clean_up_tokenization_spaces": False,
              "model_max_length": meta.need(
                  f"{meta.need('general.architecture')}.context_length"),
              "tokenizer_class": tokenizer_class, **named}
    if meta.get("tokenizer.chat_template"):
        config["chat_template"] = meta.get("tokenizer.chat_template")
    return config, named


def source_note(path, meta, origin):
    digest = hashlib.sha256()
    with open(path, "rb") as f:
        while block := f.read(1 << 20):
            digest.update(block)
    lines = ["# Where this model comes from", "",
             f"Converted to bfloat16 by matquant's scripts/gguf_to_hf.py from `{path.name}`",
             f"(sha256 {digest.hexdigest()}).", ""]
    lines += [f"- {note}" for note in origin]
    lines += ["", "What the GGUF file says of itself:", ""]
    lines += [f"- {key}: {value}" for key, value in meta.scalars()]
    return "\n".join(lines) + "\n"


def write_safetensors(path, tensors):
    """{name: (shape, bytes in bfloat16)} -> one file: header length, JSON header, the data."""
    header = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name in sorted(tensors):
        shape, data = tensors[name]
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [offset, offset + len(data)]}
        offset += len(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for name in sorted(tensors):
            f.write(tensors[name][1])


def write_json(path, value, indent=2):
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    path.write_text(text + "\n", encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("gguf", type=pathlib.Path, help="the GGUF file")
    parser.add_argument("outdir", type=pathlib.Path, help="the folder to make; must not exist")
    parser.add_argument("--origin", action="append", default=[], metavar="TEXT",
                        help="a line for SOURCE.md (may be given several times)")
    args = parser.parse_args()

    reader = gguf.GGUFReader(args.gguf)
    meta = Metadata(reader)
    arch = meta.need("general.architecture")
    if arch not in ARCHITECTURES:
        known = ", ".join(sorted(ARCHITECTURES))
        raise SystemExit(f"gguf_to_hf: architecture {arch} is not known (known: {known})")
    make_config, make_tokenizer, tokenizer_class = ARCHITECTURES[arch]

    args.outdir.mkdir(parents=True)
    tensors = convert_tensors(reader, meta, arch)
    tied = "lm_head.weight" not in tensors
    write_safetensors(args.outdir / "model.safetensors", tensors)
    config = make_config(meta, tied)
    write_json(args.outdir / "config.json", config)
    write_json(args.outdir / "generation_config.json",
               {"_from_model_config": True,
                **{k: config[k] for k in ("bos_token_id", "eos_token_id", "pad_token_id")}})

    tokenizer = make_tokenizer(meta)
    write_json(args.outdir / "tokenizer.json", tokenizer, indent=1)
    settings, named = tokenizer_config(meta, tokenizer, tokenizer_class)
    write_json(args.outdir / "tokenizer_config.json", settings)
    write_json(args.outdir / "special_tokens_map.json", named)
    if "chat_template" in settings:
        (args.outdir / "chat_template.jinja").write_text(settings["chat_template"],
                                                         encoding="utf-8")
    (args.outdir / "SOURCE.md").write_text(source_note(args.gguf, meta, args.origin),
                                           encoding="utf-8")

    loaded = tokenizers.Tokenizer.from_file(str(args.outdir / "tokenizer.json"))
    sample = "Hello, world! 12345 tokens:\n\n  caf\u00e9 \u4f60\u597d \U0001f600"
    if loaded.decode(loaded.encode(sample).ids) != sample:
        raise SystemExit("gguf_to_hf: the tokenizer does not give its own text back")
    print(f"{args.outdir}: {len(tensors)} tensors, {loaded.get_vocab_size()} tokens, {arch}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
