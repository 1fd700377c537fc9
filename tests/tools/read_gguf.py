#!/usr/bin/env python3
"""read_gguf.py MASTER FILE WIDTH [PATTERN=R...]: is the GGUF file the WIDTH-bit model of MASTER?

Reads metadata and tensors with nothing but struct. The weights must be the master's bit for bit in F32; in 4 and 5 bits (Q4_1,
Q5_1; of a symmetric master Q4_0, Q5_0); where codes of 2 and 3 bits are stored in Q4_1; and in K-quants of groups of a multiple
of 256, Q3_K and Q6_K of a symmetric master only. Else, in Q8_0, Q2_K, Q3_K, Q6_K, F16 and BF16, their squared difference is
printed and must be small. Everything else must be the master's own, or its float32. Prints the types of the blocks' matrices,
the names of chat templates, and what the file says of sampling, too. PATTERN=R as in slice --layer-bits, also for the widths that
GGUF chooses by itself.
"""
import math
import os
import re
import struct
import sys

from checkpoint import Master, check, float32, numbers, read_json, text_of

SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}


class File:
    def __init__(self, path):
        with open(path, "rb") as file:
            self.data = file.read()
        self.at = 0
        check(self.take("4s") == b"GGUF" and self.take("I") == 3, "no GGUF of version 3")
        tensors, pairs = self.take("Q"), self.take("Q")
        self.meta, self.kinds = {}, {}
        for _ in range(pairs):
            key = self.string()
            check(key not in self.meta, key + " is there twice")
            self.kinds[key] = self.take("I")
            self.meta[key] = self.value(self.kinds[key])
        infos = []
        for _ in range(tensors):
            name, dims = self.string(), self.take("I")
            infos.append((name, [self.take("Q") for _ in range(dims)][::-1], self.take("I"), self.take("Q")))
        begin = -(-self.at // 32) * 32
        self.tensors = {name: (shape, kind, begin + offset) for name, shape, kind, offset in infos}

    def take(self, form):
        (value,) = struct.unpack_from("<" + form, self.data, self.at)
        self.at += struct.calcsize("<" + form)
        return value

    def string(self):
        return self.take("%ds" % self.take("Q")).decode()

    def value(self, kind):
        if kind == 8:
            return self.string()
        if kind == 9:
            inner, count = self.take("I"), self.take("Q")
            return [self.value(inner) for _ in range(count)]
        return self.take(SCALARS[kind])


SUPER_BYTES = {11: 110, 12: 144, 13: 176, 14: 210}


def six_bits(packed):
    """The 8 scales and the 8 minima of Q4_K and Q5_K."""
    low, high = packed[8:12], [[b & 63 for b in packed[k:k + 4]] for k in (0, 4)]
    above = [[b >> 6 << 4 for b in packed[k:k + 4]] for k in (0, 4)]
    return (high[0] + [b & 15 | a for b, a in zip(low, above[0])],
            high[1] + [b >> 4 | a for b, a in zip(low, above[1])])


def super_block(kind, b):
    """The 256 weights of Q3_K, Q4_K, Q5_K, Q6_K."""
    def pairs(at):  # 64 bytes with 2 bits of each weight
        return [b[at + i // 128 * 32 + i % 32] >> i % 128 // 32 * 2 & 3 for i in range(256)]
    if kind == 11:
        (d,) = struct.unpack_from("<e", b, 108)
        scales = [(b[96 + j % 8] >> 4 * (j // 8) & 15) | (b[104 + j % 4] >> 2 * (j // 4) & 3) << 4 for j in range(16)]
        codes = [low | (b[i % 32] >> i // 32 & 1) << 2 for i, low in enumerate(pairs(32))]
        return [d * (scales[i // 16] - 32) * (code - 4) for i, code in enumerate(codes)]
    if kind == 14:
        (d,) = struct.unpack_from("<e", b, 208)
        scales = struct.unpack_from("<16b", b, 192)
        codes = [(b[i // 128 * 64 + i % 64] >> i % 128 // 64 * 4 & 15) | high << 4 for i, high in enumerate(pairs(128))]
        return [d * scales[i // 16] * (code - 32) for i, code in enumerate(codes)]
    d, least = struct.unpack_from("<2e", b)
    scales, minima = six_bits(b[4:16])
    at = 48 if kind == 13 else 16
    codes = [b[at + i // 64 * 32 + i % 32] >> i % 64 // 32 * 4 & 15 for i in range(256)]
    if kind == 13:
        codes = [code | (b[16 + i % 32] >> i // 32 & 1) << 4 for i, code in enumerate(codes)]
    return [d * scales[i // 32] * code - least * minima[i // 32] for i, code in enumerate(codes)]


def weights(file, name):
    """The values of a tensor, in the order of the file, as doubles or float32."""
    shape, kind, at = file.tensors[name]
    count = 1
    for n in shape:
        count *= n
    data, values = file.data, []
    if kind in (0, 1, 30):
        size = 4 if kind == 0 else 2
        return numbers(({0: "F32", 1: "F16", 30: "BF16"}[kind], shape, data[at:at + count * size]))
    if kind in (11, 12, 13, 14):
        size = SUPER_BYTES[kind]
        for i in range(count // 256):
            values.extend(super_block(kind, data[at + i * size:at + (i + 1) * size]))
        return float32(values)
    for _ in range(count // (256 if kind == 10 else 32)):
        if kind == 3:
            d, m = struct.unpack_from("<2e", data, at)
            q = data[at + 4:at + 20]
            values.extend(d * c + m for c in [b & 15 for b in q] + [b >> 4 for b in q])
            at += 20
        elif kind == 7:
            d, m, high = struct.unpack_from("<2eI", data, at)
            q = data[at + 8:at + 24]
            codes = [b & 15 for b in q] + [b >> 4 for b in q]
            values.extend(d * (c | (high >> i & 1) << 4) + m for i, c in enumerate(codes))
            at += 24
        elif kind in (2, 6):
            (d,), fifth = struct.unpack_from("<e", data, at), 4 if kind == 6 else 0
            high = struct.unpack_from("<I", data, at + 2)[0] if fifth else 0
            packed = data[at + 2 + fifth:at + 18 + fifth]
            codes = [b & 15 for b in packed] + [b >> 4 for b in packed]
            zero = 16 if fifth else 8
            values.extend(d * ((code | (high >> i & 1) << 4) - zero) for i, code in enumerate(codes))
            at += 18 + fifth
        elif kind == 8:
            d, *q = struct.unpack_from("<e32b", data, at)
            values.extend(d * c for c in q)
            at += 34
        else:
            check(kind == 10, "%s has the unexpected type %d" % (name, kind))
            scales, q = data[at:at + 16], data[at + 16:at + 80]
            d, least = struct.unpack_from("<2e", data, at + 80)
            for i in range(256):
                scale = scales[i // 16]
                code = q[i // 128 * 32 + i % 32] >> i % 128 // 32 * 2 & 3
                values.append(d * (scale & 15) * code - least * (scale >> 4))
            at += 84
    return float32(values)


NAMES = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
         "self_attn.qkv_proj": "attn_qkv", "mlp.gate_up_proj": "ffn_up",
         "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
         "mlp.down_proj": "ffn_down", "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
         "input_layernorm": "attn_norm", "pre_feedforward_layernorm": "ffn_norm",
         "post_feedforward_layernorm": "post_ffw_norm"}


def gguf_name(name, post_norms):
    fixed = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight",
             "lm_head.weight": "output.weight"}
    name = name.replace("model.language_model.", "model.")
    if name in fixed:
        return fixed[name]
    _, _, layer, middle = name.split(".", 3)
    middle, _, end = middle.rpartition(".")
    if middle == "post_attention_layernorm":
        return "blk.%s.%s.%s" % (layer, "post_attention_norm" if post_norms else "ffn_norm", end)
    return "blk.%s.%s.%s" % (layer, NAMES[middle], end)


def interleave(values, name, rows, config):
    """Rows i and i + n of a head, rotated together, side by side."""
    heads = config["num_attention_heads"] if ".attn_q." in name else config["num_key_value_heads"]
    size, columns = rows // heads, len(values) // rows
    result = values[:0]
    for row in range(rows):
        head, at = divmod(row, size)
        source = head * size + at % 2 * (size // 2) + at // 2
        result.extend(values[source * columns:(source + 1) * columns])
    return result


# transformers', of what the language model of a model with images may leave out
DEFAULTS = {"gemma3_text": {"vocab_size": 262208, "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256,
                            "max_position_embeddings": 131072, "rms_norm_eps": 1e-6, "rope_theta": 1e6,
                            "rope_local_base_freq": 1e4}}


def config_of(master):
    text = text_of(master.config)
    return {"num_key_value_heads": text.get("num_attention_heads"), **DEFAULTS.get(text["model_type"], {}), **text}


def scaling_of(config):
    """The rotary parameters of all layers, or of those that see the whole text."""
    rope = config.get("rope_parameters") or {"rope_theta": config.get("rope_theta"), **(config.get("rope_scaling") or {})}
    return rope.get("full_attention", rope)


def check_rope(file, config, arch):
    meta, rope = file.meta, scaling_of(config)
    kind, size = rope.get("rope_type") or rope.get("type", "default"), config.get("head_dim") or \
        config["hidden_size"] // config["num_attention_heads"]
    size = int(size * (config.get("partial_rotary_factor") or rope.get("partial_rotary_factor") or 1))
    check(meta[arch + ".rope.dimension_count"] == size, "another number of rotated dimensions")
    check(meta[arch + ".rope.freq_base"] == rope["rope_theta"], "rope.freq_base differs")
    named = {"linear": "linear", "yarn": "yarn"}.get(kind)
    check(meta.get(arch + ".rope.scaling.type") == named, "rope.scaling.type differs")
    if named:
        check(meta[arch + ".rope.scaling.factor"] == rope["factor"], "rope.scaling.factor differs")
    if kind == "yarn":
        original = rope.get("original_max_position_embeddings") or config["max_position_embeddings"]
        check(meta[arch + ".rope.scaling.original_context_length"] == original, "another original context")
        for name, default in ("beta_fast", 32), ("beta_slow", 1):
            check(meta["%s.rope.scaling.yarn_%s" % (arch, name)] == (rope.get(name) or default), name + " differs")
    if kind == "llama3":
        check(file.tensors["rope_freqs.weight"][0] == [size // 2], "rope_freqs has another shape")
        for i, found in enumerate(weights(file, "rope_freqs.weight")):
            turns = rope["original_max_position_embeddings"] * rope["rope_theta"] ** (-2 * i / size) / (2 * math.pi)
            low, high, factor = rope["low_freq_factor"], rope["high_freq_factor"], rope["factor"]
            smooth = min(max((turns - low) / (high - low), 0), 1)
            check(abs(found * ((1 - smooth) / factor + smooth) - 1) < 1e-5, "rope_freqs[%d] differs" % i)
    else:
        check("rope_freqs.weight" not in file.tensors, "rope_freqs of a model without")
    if kind == "longrope":
        original = config["original_max_position_embeddings"]
        check(meta[arch + ".rope.scaling.original_context_length"] == original, "another original context")
        factor = rope.get("factor") or config["max_position_embeddings"] / original
        wanted = rope.get("attention_factor") or math.sqrt(1 + math.log(factor) / math.log(original))
        check(abs(meta[arch + ".rope.scaling.attn_factor"] / wanted - 1) < 1e-6, "another attention factor")
        for which in "short", "long":
            factors = float32(rope[which + "_factor"])
            check(weights(file, "rope_factors_%s.weight" % which) == factors, "rope_factors_%s differs" % which)
    if arch == "phi3":
        check(meta["phi3.attention.sliding_window"] == (config.get("sliding_window") or 0), "another window")
    if arch in ("gemma2", "gemma3"):
        for cap, default in ("attn_logit_softcapping", 50.0), ("final_logit_softcapping", 30.0):
            wanted = config.get(cap, default if arch == "gemma2" else None)
            check(meta.get(arch + "." + cap) == wanted, cap + " differs")
        check(meta[arch + ".attention.sliding_window"] == config["sliding_window"], "another window")
    if arch == "gemma2":
        check(meta["gemma2.rope.freq_base_swa"] == rope["rope_theta"], "rope.freq_base_swa differs")
        check("gemma2.attention.sliding_window_pattern" not in meta, "a pattern of windows, which not all versions read")
    if arch == "gemma3":
        own = config.get("rope_parameters")  # before version 5 of transformers it was a field of its own
        base = own["sliding_attention"]["rope_theta"] if own else config["rope_local_base_freq"]
        check(meta["gemma3.rope.freq_base_swa"] == base, "rope.freq_base_swa differs")
        every = config.get("sliding_window_pattern", 6)
        local = ([kind == "sliding_attention" for kind in config["layer_types"]] if "layer_types" in config else
                 [bool((layer + 1) % every) for layer in range(config["num_hidden_layers"])])
        wanted = next((n for n in range(1, len(local) + 2)
                       if local == [bool((layer + 1) % n) for layer in range(len(local))]), local)
        check(meta["gemma3.attention.sliding_window_pattern"] == wanted, "another pattern of windows")


# In the file, of whose scalars float32 is the type, and in config.json, where each is 1 by default.
MULTIPLIERS = {"embedding_scale": "embedding_multiplier", "attention.scale": "attention_multiplier",
               "residual_scale": "residual_multiplier", "logit_scale": "logits_scaling"}


def check_multipliers(file, config, arch):
    for key, field in MULTIPLIERS.items():
        found, wanted = file.meta.get("%s.%s" % (arch, key)), config.get(field, 1.0)
        check(abs(found / wanted - 1) < 1e-7 if arch == "granite" else found is None, key + " differs")


def check_templates(meta, folder):
    """All, and the list of names, which the default one does not stand in."""
    path, given = os.path.join(folder, "chat_template.jinja"), read_json(folder, "tokenizer_config.json").get("chat_template")
    if os.path.exists(path):
        with open(path, encoding="utf-8") as text:
            given = text.read()
    if isinstance(given, str):
        given = [{"name": "default", "template": given}]
    templates = {re.sub("[^A-Za-z0-9]", "_", entry["name"]): entry["template"] for entry in given or []
                 if entry["name"] and entry["template"] is not None}
    names = sorted(set(templates) - {"default"})
    wanted = {"tokenizer.chat_template." + name: templates[name] for name in names}
    if "default" in templates:
        wanted["tokenizer.chat_template"] = templates["default"]
    if names:
        wanted["tokenizer.chat_templates"] = names
    found = {key: value for key, value in meta.items() if key.startswith("tokenizer.chat")}
    if "tokenizer.chat_templates" in found:
        found["tokenizer.chat_templates"].sort()
    check(found == wanted, "the chat templates differ: %s" % sorted(found))


# In generation_config.json, and in the file: after general.sampling, with GGUF's type; and transformers' own names.
SAMPLING = {"sequence": ("sequence", 8), "temperature": ("temp", 6), "top_k": ("top_k", 5), "top_p": ("top_p", 6),
            "min_p": ("min_p", 6), "xtc_probability": ("xtc_probability", 6), "xtc_threshold": ("xtc_threshold", 6),
            "penalty_last_n": ("penalty_last_n", 5), "penalty_repeat": ("penalty_repeat", 6), "mirostat": ("mirostat", 5),
            "mirostat_tau": ("mirostat_tau", 6), "mirostat_eta": ("mirostat_eta", 6)}
OTHER_NAMES = {"penalty_repeat": "repetition_penalty"}


def holds(kind, value):
    """Whether GGUF's type does; a truth value is no number."""
    if kind == 8:
        return isinstance(value, str)
    return type(value) in (int, float) and (abs(value) <= 3.4028234e38 if kind == 6 else
                                            value == int(value) and abs(value) < 1 << 31)


def sampling_of(file):
    """{name: (type, value)}"""
    begin = "general.sampling."
    return {key[len(begin):]: (file.kinds[key], value) for key, value in file.meta.items() if key.startswith(begin)}


def generation_of(folder):
    path = os.path.join(folder, "generation_config.json")
    return read_json(folder, "generation_config.json") if os.path.exists(path) else {}


def check_sampling(file, folder):
    wanted, given = {}, generation_of(folder)
    for field, (name, kind) in SAMPLING.items():
        value = given.get(field)
        value = given.get(OTHER_NAMES.get(field)) if value is None else value
        if holds(kind, value):
            wanted[name] = kind, float32([value])[0] if kind == 6 else value
    check(sampling_of(file) == wanted, "sampling differs: %s" % sampling_of(file))


def end_of_text(master, tokens):
    """The id that eos_token or, where it is not there, the first eos_token_id names; None: nothing does."""
    named = read_json(master.folder, "tokenizer_config.json").get("eos_token")
    named = named["content"] if isinstance(named, dict) else named
    if named in tokens:
        return tokens.index(named)
    for config in master.config, generation_of(master.folder):
        ids = config.get("eos_token_id")
        first = (ids or [None])[0] if isinstance(ids, list) else ids
        if isinstance(first, int) and 0 <= first < len(tokens):
            return first
    return None


def check_meta(file, master):
    config, meta = config_of(master), file.meta
    arch = meta["general.architecture"]
    check(abs(meta[arch + ".attention.layer_norm_rms_epsilon"] / config["rms_norm_eps"] - 1) < 1e-6, "epsilon differs")
    fields = {"embedding_length": "hidden_size", "block_count": "num_hidden_layers",
              "feed_forward_length": "intermediate_size", "attention.head_count": "num_attention_heads",
              "attention.head_count_kv": "num_key_value_heads", "context_length": "max_position_embeddings",
              "vocab_size": "vocab_size"}
    for key, field in fields.items():
        wanted = config[field]
        if key == "context_length" and config["model_type"] in ("mistral", "phi3"):  # llama.cpp knows no windows of Llama's
            wanted = min(wanted, config.get("sliding_window") or wanted)
        check(meta["%s.%s" % (arch, key)] == wanted, key + " differs")
    card = meta["general.description"]
    check(master.description() in card and "Llama(" in card, "the model card does not say what this is")
    tokenizer = read_json(master.folder, "tokenizer.json")
    tokens = meta["tokenizer.ggml.tokens"]
    check(len(tokens) == config["vocab_size"] == len(set(tokens)), "tokens: another number, or one twice")
    check(all(tokens[i] == text for text, i in tokenizer["model"]["vocab"].items()
              if meta["tokenizer.ggml.token_type"][i] != 4), "tokens differ")
    if meta["tokenizer.ggml.model"] == "gpt2":
        merges = [m if isinstance(m, str) else " ".join(m) for m in tokenizer["model"]["merges"]]
        check(meta["tokenizer.ggml.merges"] == merges, "merges differ")
    check_rope(file, config, arch)
    check_multipliers(file, config, arch)
    check_templates(meta, master.folder)
    check_sampling(file, master.folder)
    text = (read_json(master.folder, "tokenizer_config.json") or {}).get("bos_token")
    if isinstance(text, str):
        check(tokens[meta["tokenizer.ggml.bos_token_id"]] == text, "bos differs")
    check(meta.get("tokenizer.ggml.eos_token_id") == end_of_text(master, tokens), "eos differs")
    if meta["tokenizer.ggml.model"] == "llama":
        check(len(meta["tokenizer.ggml.scores"]) == len(tokens), "another number of scores")
        prefix = ((tokenizer["normalizer"] or {}).get("type") == "Sequence" or
                  (tokenizer["pre_tokenizer"] or {}).get("prepend_scheme") in ("always", "first"))
        check(meta["tokenizer.ggml.add_space_prefix"] == prefix, "add_space_prefix differs")
    for token in tokenizer["added_tokens"]:
        kind = meta["tokenizer.ggml.token_type"][token["id"]]
        check(kind in ((2, 3) if token["special"] else (2, 4)), "the type of %s" % token["content"])
    return arch


def main():
    master, file = Master(sys.argv[1], int(sys.argv[3]), sys.argv[4:]), File(sys.argv[2])
    arch = check_meta(file, master)
    gemma = arch in ("gemma2", "gemma3")
    symmetric = master.settings.get("zero_point") == "symmetric"
    exact = inexact = 0
    error = power = 0.0
    names, kinds = set(), set()
    linears = {prefix + ".weight": prefix for prefix in master.prefixes}
    for name, tensor in list(master.plain(others=False).items()) + [(name, None) for name in linears]:
        theirs = gguf_name(name, gemma or arch == "olmo2")
        names.add(theirs)
        shape, kind, at = file.tensors[theirs]
        check(at % 32 == 0, theirs + " is not aligned")
        wanted = master.weights(linears[name]) if tensor is None else numbers(tensor)
        original = master.tensors[linears[name] + ".codes"][1] if tensor is None else tensor[1]
        check(shape == original, theirs + " has another shape")
        if arch in ("llama", "smollm3", "granite") and (".attn_q." in theirs or ".attn_k." in theirs):
            wanted = interleave(wanted, theirs, shape[0], config_of(master))
        if gemma and theirs.endswith("norm.weight"):
            wanted = float32(1 + w for w in wanted)
        got = weights(file, theirs)
        whole = tensor is None and original[1] // master.linear(linears[name])[2] % 256 == 0
        if tensor is None and theirs.startswith("blk."):
            kinds.add(kind)
        rounded = kind in (1, 30) and (tensor is None or tensor[0] != {1: "F16", 30: "BF16"}[kind])
        centred = kind in (11, 14) and not (whole and symmetric)
        if kind == 8 and not symmetric or kind == 10 and not whole or centred or rounded:
            off, size = sum((a - b) ** 2 for a, b in zip(got, wanted)), sum(b * b for b in wanted)
            if tensor is None:  # the error that slice reports is of these
                error, power = error + off, power + size
            check(tensor is None or off < 1e-4 * size, theirs + " is far from the source's")
            inexact += len(got)
        else:
            check(got == wanted, theirs + " differs")
            exact += len(got)
    rope = scaling_of(config_of(master))
    rope = rope.get("rope_type") or rope.get("type", "default")
    names |= {"rope_factors_short.weight", "rope_factors_long.weight"} if rope == "longrope" else set()
    names |= {"rope_freqs.weight"} if rope == "llama3" else set()
    check(set(file.tensors) == names, "tensors that do not belong there: %s" % sorted(set(file.tensors) ^ names))
    print("%s, tokenizer %s %s, rope %s" % (file.meta["general.architecture"], file.meta["tokenizer.ggml.model"],
                                            file.meta["tokenizer.ggml.pre"], rope))
    print("types %s" % " ".join(map(str, sorted(kinds))))
    print("end of text: %s" % file.meta.get("tokenizer.ggml.eos_token_id"))
    print("chat templates: %s" % " ".join(sorted(key[len("tokenizer.chat_template."):] or "default" for key in file.meta
                                                 if (key + ".").startswith("tokenizer.chat_template."))))
    print("sampling: %s" % " ".join("%s:%d=%s" % (name, kind, value if kind == 8 else "%.6g" % value)
                                    for name, (kind, value) in sorted(sampling_of(file).items())))
    print("%d numbers are the same" % exact)
    if inexact:
        check(error < 0.2 * power, "the fitted weights are far from the master's")
        print("%d numbers are fitted, relative squared error %.6g" % (inexact, error / power))


main()
