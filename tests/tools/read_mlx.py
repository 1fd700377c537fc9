#!/usr/bin/env python3
"""read_mlx.py MASTER SLICE WIDTH [DTYPE] [PATTERN=R...]: is SLICE (MLX's affine format) the WIDTH-bit model of MASTER, bit
for bit? With DTYPE (BF16, F16, F32) what is not quantized is in that type. PATTERN=R as in slice --layer-bits.

Prints what it compared and ends with 0, or names the first difference and ends with 1.
"""
import sys

from checkpoint import Master, check, check_config, check_small_files, float32, module_name, numbers, read_json, \
    read_modules, split_words, text_of


def pair_dtype(prefix, master, dtype):
    """BF16 for embeddings and head where bfloat16 has their numbers, unless what is plain is of float16."""
    plain = {dtype or tensor[0] for name, tensor in master.tensors.items() if name.endswith("norm.weight")}
    if prefix not in master.embeddings or "F16" in plain:
        return "F16"
    values = [value for part in master.linear(prefix)[4:] for value in part]
    return "BF16" if all(word & 0xffff == 0 for word in memoryview(float32(values)).cast("B").cast("I")) else "F16"


def compare_linear(prefix, master, cut_out, group_size, plain_dtype):
    rows, columns, groups, slices, _, _ = master.linear(prefix)
    width = master.bits_of(master.width_of(prefix))
    dtype, shape, words = cut_out[prefix + ".weight"]
    check(dtype == "U32" and shape == [rows, columns * width // 32], prefix + ".weight has another form")
    their_scales, their_biases = (cut_out[prefix + "." + part] for part in ("scales", "biases"))
    for part, tensor in (("scales", their_scales), ("biases", their_biases)):
        check(tensor[:2] == (pair_dtype(prefix, master, plain_dtype), [rows, columns // group_size]), prefix + "." + part)
    their_scales, their_biases = numbers(their_scales), numbers(their_biases)
    wanted, row_bytes = master.weights(prefix), columns * width // 8
    for row in range(rows):
        bits = int.from_bytes(words[row * row_bytes:(row + 1) * row_bytes], "little")
        theirs = [bits >> (column * width) & ((1 << width) - 1) for column in range(columns)]
        check(bytes(theirs) == slices[row * columns:(row + 1) * columns], "%s, row %d: other slices" % (prefix, row))
        first = row * (columns // group_size)
        values = float32(their_scales[first + i // group_size] * s + their_biases[first + i // group_size]
                         for i, s in enumerate(theirs))
        check(values == wanted[row * columns:(row + 1) * columns], "%s, row %d: other weights" % (prefix, row))
    return rows * columns


def check_rope(original, config):
    """mlx-lm reads rotary settings as transformers 4 spelled them. The fields that may differ."""
    rope = original.get("rope_parameters") or original
    everywhere, local = rope.get("full_attention", rope), rope.get("sliding_attention", {})
    check("rope_parameters" not in config, "rope_parameters is still there")
    check(config["rope_theta"] == everywhere.get("rope_theta", config["rope_theta"]), "rope_theta differs")
    check(local.get("rope_theta", config.get("rope_local_base_freq")) == config.get("rope_local_base_freq"),
          "rope_local_base_freq differs")
    scaling = everywhere.get("rope_scaling") if rope is original else \
        {key: value for key, value in everywhere.items() if key != "rope_theta"}
    theirs = config.get("rope_scaling") or {}
    check({key: theirs.get(key) for key in scaling or {}} == (scaling or {}) or
          (scaling or {}).get("rope_type", "default") == "default" and not theirs, "rope_scaling differs")
    return "rope_parameters", "rope_theta", "rope_local_base_freq", "rope_scaling"


def check_defaults(original, config):
    """What mlx-lm has other defaults for, or none, is said. The fields that may have been left out."""
    names = ["vocab_size", "num_attention_heads", "num_key_value_heads", "head_dim", "max_position_embeddings", "rms_norm_eps", "tie_word_embeddings"]
    if config["model_type"].startswith("gemma"):
        names += ["sliding_window", "sliding_window_pattern"]
    for name in names:
        check(config.get(name) is not None, name + " is left to a default")
    return tuple(name for name in names if original.get(name) is None)


def check_text(master, config):
    """What config.json says of the language model. The members of the whole that may differ."""
    original, text = text_of(master.config), text_of(config)
    may = check_rope(original, text) + check_defaults(original, text)
    if text is config:
        return may
    check({key: value for key, value in text.items() if key not in may} ==
          {key: value for key, value in original.items() if key not in may}, "text_config has something else changed")
    for name in "vocab_size", "tie_word_embeddings":  # mlx-lm reads the first of them here only
        check(config[name] == text[name], name + " is not the language model's")
    return "text_config", "vocab_size", "tie_word_embeddings"


def main():
    patterns, words = split_words(sys.argv[4:])
    master, cut_out = Master(sys.argv[1], int(sys.argv[3]), patterns), read_modules(sys.argv[2])
    config, plain_dtype = read_json(sys.argv[2], "config.json"), (words or [None])[0]
    quantization = config["quantization"]
    layers = {module_name(name): own for name, own in quantization.items()}
    check(config["quantization_config"] == quantization, "the two quantization objects differ")
    check(quantization["bits"] == master.slice_bits, "bits are not the width (and one for an extra level)")
    check_config(master, config, ("quantization", "quantization_config") + check_text(master, config), plain_dtype)
    check_small_files(master, sys.argv[2])

    weights, others = 0, master.plain(plain_dtype, others=False)
    expected = set(others)
    for prefix in master.prefixes:
        own = layers.get(prefix, quantization)
        check(own["bits"] == master.bits_of(master.width_of(prefix)), prefix + ": other bits in config.json")
        weights += compare_linear(prefix, master, cut_out, own["group_size"], plain_dtype)
        expected.update(prefix + part for part in (".weight", ".scales", ".biases"))
    for name, tensor in others.items():
        check(cut_out.get(name) == tensor, name + " differs")
    check(set(cut_out) == expected, "tensors that do not belong there: %s" % sorted(set(cut_out) ^ expected))
    check(weights > 0, "no quantized tensor")
    print("%d weights and %d other tensors are the same" % (weights, len(others)))


main()
