#!/usr/bin/env python3
"""read_integer.py MASTER SLICE WIDTH [plain] [DTYPE] [PATTERN=R...]: is SLICE (GPTQ version 2, or compressed-tensors'
pack-quantized) close to the WIDTH-bit model of MASTER, and everything that is not quantized the same?

"plain": neither embedding nor head may be packed. DTYPE (BF16, F16, F32): what is not packed is in that type, and so are
compressed-tensors' scales; by default the source's. PATTERN=R as in slice --layer-bits.

Prints the relative squared error of the weights, which these formats' whole zero points cost, and ends with 0; or names
what is wrong and ends with 1.
"""
import re
import struct
import sys

from checkpoint import Master, check, check_config, check_small_files, numbers, read_json, read_modules, rounded, \
    split_words, text_of


EMBEDDING, HEAD = "model.embed_tokens", "lm_head"


def words(tensor):
    check(tensor[0] == "I32", "words that are not I32")
    return struct.unpack("<%dI" % (len(tensor[2]) // 4), tensor[2])


def unpack(stream, count, width):
    """count codes of a bit stream in words, least significant bits first."""
    bits = int.from_bytes(struct.pack("<%dI" % len(stream), *stream), "little")
    return [bits >> i * width & ((1 << width) - 1) for i in range(count)]


def gptq(prefix, tensors, shape, width, settings):
    """Rows of codes, of zero points and of scales."""
    (out, columns), groups = shape, shape[1] // settings["group_size"]
    packed, zeros = words(tensors[prefix + ".qweight"]), words(tensors[prefix + ".qzeros"])
    check(tensors[prefix + ".qweight"][1] == [columns * width // 32, out], prefix + ".qweight: another shape")
    check(tensors[prefix + ".qzeros"][1] == [groups, out * width // 32], prefix + ".qzeros: another shape")
    check(tensors[prefix + ".scales"][:2] == ("F16", [groups, out]), prefix + ".scales: another form")
    index = struct.unpack("<%di" % columns, tensors[prefix + ".g_idx"][2])
    check(list(index) == [i // settings["group_size"] for i in range(columns)], prefix + ".g_idx differs")
    scales, stride = numbers(tensors[prefix + ".scales"]), out * width // 32
    by_group = [unpack(zeros[g * stride:(g + 1) * stride], out, width) for g in range(groups)]
    return ([unpack(packed[row::out], columns, width) for row in range(out)],
            [[by_group[g][row] for g in range(groups)] for row in range(out)],
            [scales[row::out] for row in range(out)])


def compressed(prefix, tensors, shape, width, settings):
    (out, columns), groups = shape, shape[1] // settings["group_size"]
    packed, stride = words(tensors[prefix + ".weight_packed"]), -(-columns * width // 32)
    check(tensors[prefix + ".weight_packed"][1] == [out, stride], prefix + ".weight_packed: another shape")
    check(struct.unpack("<2q", tensors[prefix + ".weight_shape"][2]) == tuple(shape), prefix + ".weight_shape differs")
    check(tensors[prefix + ".weight_shape"][:2] == ("I64", [2]), prefix + ".weight_shape: another form")
    scales = numbers(tensors[prefix + ".weight_scale"])
    if settings["symmetric"]:
        check(prefix + ".weight_zero_point" not in tensors, prefix + ": zero points of a symmetric model")
        by_group = [[1 << (width - 1)] * out] * groups
    else:
        zeros = words(tensors[prefix + ".weight_zero_point"])
        check(tensors[prefix + ".weight_zero_point"][1] == [-(-out * width // 32), groups], prefix + ": zero points")
        by_group = [unpack(zeros[g::groups], out, width) for g in range(groups)]
    return ([unpack(packed[row * stride:(row + 1) * stride], columns, width) for row in range(out)],
            [[by_group[g][row] for g in range(groups)] for row in range(out)],
            [scales[row * groups:(row + 1) * groups] for row in range(out)])


def gptq_names(name, master):
    """gptqmodel takes one of Phi-3's fused projections apart, in each of its blocks."""
    block = re.fullmatch(r"model\.layers\.([0-9]+)\.mlp\.gate_up_proj(\.weight)?", name)
    apart = block and int(block.group(1)) < text_of(master.config)["num_hidden_layers"]
    return [name.replace(".gate_up_proj", part) for part in (".gate_proj", ".up_proj")] if apart else [name]


def split_rows(tensors, master):
    """The same of tensors that are not quantized: {name: tensor}."""
    result = {}
    for name, (dtype, shape, data) in tensors.items():
        names = gptq_names(name, master)
        size = len(data) // len(names)
        for i, part in enumerate(names):
            rows = [shape[0] // 2, *shape[1:]] if len(names) == 2 else shape
            result[part] = dtype, rows, data[i * size:(i + 1) * size]
    return result


def check_longrope(master, config):
    """gptqmodel takes a missing factor for 1."""
    scaling = dict(config["rope_scaling"])
    factor = scaling.pop("factor")
    check(factor == master.config["max_position_embeddings"] / master.config["original_max_position_embeddings"], "factor")
    check(scaling == master.config["rope_scaling"], "rope_scaling has something else changed")


def check_embeddings(master, quantization, may_pack):
    """Which of embedding and head are not packed: compressed-tensors packs what has everything's width, GPTQ a head. The
    settings must say so."""
    if quantization["quant_method"] == "gptq":
        packed = [prefix for prefix in master.embeddings
                  if may_pack and prefix == HEAD and master.width_of(HEAD) in (2, 3, 4, 8)]
        dynamic = {"-:^%s$" % name.replace(".", "\\."): {} for ignored in master.ignored for name in gptq_names(ignored, master)}
        for prefix in master.prefixes:
            if master.width_of(prefix) != master.width and (prefix in packed or prefix not in master.embeddings):
                for name in gptq_names(prefix, master):
                    dynamic["+:^%s$" % name.replace(".", "\\.")] = {"bits": master.width_of(prefix)}
        check(quantization["lm_head"] == bool(packed), "lm_head is wrong")
        check(quantization.get("dynamic", {}) == dynamic, "dynamic is wrong")
    else:
        packed = [prefix for prefix in master.embeddings if may_pack and master.width_of(prefix) == master.width]
        targets = quantization["config_groups"]["group_0"]["targets"]
        check(targets == ["Linear"] + ["Embedding"] * (EMBEDDING in packed), "targets are wrong")
        parts = ["re:.*vision_tower.*", "re:.*multi_modal_projector.*"] if "vision_config" in master.config else []
        check(quantization["ignore"] == master.ignored + [HEAD] * (HEAD not in packed) + parts, "ignore is wrong")
    return [prefix for prefix in master.embeddings if prefix not in packed]


def drop_unused_head(master):
    """Of a head beside embeddings that are the head a slice has nothing."""
    if master.config.get("tie_word_embeddings"):
        master.tensors = {name: tensor for name, tensor in master.tensors.items() if not name.startswith(HEAD + ".")}
        master.prefixes, master.embeddings = ([prefix for prefix in prefixes if prefix != HEAD]
                                              for prefixes in (master.prefixes, master.embeddings))


def main():
    patterns, options = split_words(sys.argv[4:])
    master, tensors = Master(sys.argv[1], int(sys.argv[3]), patterns), read_modules(sys.argv[2])
    drop_unused_head(master)
    width, config = master.width, read_json(sys.argv[2], "config.json")
    quantization, extra = config["quantization_config"], ()
    wanted_dtype = ([word for word in options if word != "plain"] or [None])[0]
    of_plain = wanted_dtype or next(tensor[0] for name, tensor in master.tensors.items() if name.endswith(".norm.weight"))
    if quantization["quant_method"] == "gptq":
        check(quantization["checkpoint_format"] == "gptq_v2" and quantization["bits"] == width, "other settings")
        check(read_json(sys.argv[2], "quantize_config.json") == quantization, "quantize_config.json differs")
        settings, read, parts, extra = quantization, gptq, 4, ("quantize_config.json",)
    else:
        settings = quantization["config_groups"]["group_0"]["weights"]
        check(settings["num_bits"] == width and quantization["format"] == "pack-quantized", "other settings")
        read, parts = compressed, 3 if settings["symmetric"] else 4
    longrope = (config.get("rope_scaling") or {}).get("type") == "longrope" and read == gptq
    if longrope:
        check_longrope(master, config)
    check_config(master, config, ("quantization_config",) + ("rope_scaling",) * longrope, wanted_dtype)
    check_small_files(master, sys.argv[2], extra)

    error = power = 0.0
    plain = check_embeddings(master, quantization, "plain" not in options)
    for prefix in plain:
        dtype, values = tensors[prefix + ".weight"][0], master.weights(prefix)
        check(dtype == of_plain, prefix + ".weight is of another type")
        check(tensors[prefix + ".weight"][2] == rounded(values, dtype), prefix + ".weight differs")
    linears, count = [prefix for prefix in master.prefixes if prefix not in plain], 0
    for prefix in linears:
        shape, size = master.tensors[prefix + ".codes"][1], settings["group_size"]
        names = gptq_names(prefix, master) if read == gptq else [prefix]
        codes, zeros, scales = [], [], []
        for name in names:
            for rows, more in zip((codes, zeros, scales), read(name, tensors, [shape[0] // len(names), shape[1]],
                                                               master.width_of(prefix), settings)):
                rows += more
        count += parts * len(names)
        wanted = master.weights(prefix)
        for row in range(shape[0]):
            for i, code in enumerate(codes[row]):
                w = wanted[row * shape[1] + i]
                error += (scales[row][i // size] * (code - zeros[row][i // size]) - w) ** 2
                power += w * w
        check(read == gptq or tensors[prefix + ".weight_scale"][0] == of_plain, prefix + ": scales of another type")
    others = master.plain(wanted_dtype)
    others = split_rows(others, master) if read == gptq else others
    for name, tensor in others.items():
        check(tensors.get(name) == tensor, name + " differs")
    check(len(tensors) == len(others) + len(plain) + count, "tensors that do not belong there")
    print("%d other tensors are the same; relative squared error %.6g" % (len(others), error / power))
    print("%d of embedding and head packed" % (len(master.embeddings) - len(plain)))


main()
