#!/usr/bin/env python3
"""read_mlx.py MASTER SLICE WIDTH: is SLICE (MLX's affine format) the WIDTH-bit model of MASTER, bit for bit?

Reads both folders with nothing but json and struct, and cuts the codes by hand as include/matquant/format.h says. Shares
no code with matquant. Prints what it compared and ends with 0, or names the first difference and ends with 1.
"""
import json
import os
import struct
import sys


def read_tensors(folder):
    """{name: (dtype, shape, bytes)} of all safetensors files of a folder."""
    tensors = {}
    for name in sorted(os.listdir(folder)):
        if not name.endswith(".safetensors"):
            continue
        with open(os.path.join(folder, name), "rb") as file:
            data = file.read()
        (length,) = struct.unpack_from("<Q", data)
        header = json.loads(data[8:8 + length])
        header.pop("__metadata__", None)
        for tensor, entry in header.items():
            begin, end = entry["data_offsets"]
            tensors[tensor] = (entry["dtype"], entry["shape"], data[8 + length + begin:8 + length + end])
    return tensors


def read_json(folder, name):
    with open(os.path.join(folder, name), encoding="utf-8") as file:
        return json.load(file)


def halves(data):
    return struct.unpack("<%de" % (len(data) // 2), data)


def float32_bits(value):
    """A double rounded once to float32. scale * slice + bias of float16 numbers and a byte is exact in a double."""
    return struct.pack("<f", value)


def check(condition, message):
    if not condition:
        sys.exit("read_mlx.py: " + message)


def cut(code, width, rule):
    if rule == "top" or width == 8:
        return code >> (8 - width)
    return min((code + (1 << (7 - width))) >> (8 - width), (1 << width) - 1)


def compare_linear(prefix, master, cut_out, width, rule, group_size):
    dtype, (rows, columns), codes = master[prefix + ".codes"]
    check(dtype == "U8", prefix + ".codes is not U8")
    scales, biases = (halves(master["%s.%s.w%d" % (prefix, part, width)][2]) for part in ("scales", "biases"))
    groups = len(scales) // rows

    dtype, shape, words = cut_out[prefix + ".weight"]
    check(dtype == "U32" and shape == [rows, columns * width // 32], prefix + ".weight has another form")
    their_scales, their_biases = (cut_out[prefix + "." + part] for part in ("scales", "biases"))
    for part, tensor in (("scales", their_scales), ("biases", their_biases)):
        check(tensor[0] == "F16" and tensor[1] == [rows, columns // group_size], prefix + "." + part)
    their_scales, their_biases = halves(their_scales[2]), halves(their_biases[2])

    for row in range(rows):
        bits = int.from_bytes(words[row * columns * width // 8:(row + 1) * columns * width // 8], "little")
        for column in range(columns):
            where = "%s, row %d, column %d" % (prefix, row, column)
            mine = cut(codes[row * columns + column], width, rule)
            theirs = bits >> (column * width) & ((1 << width) - 1)
            check(mine == theirs, "%s: slice %d instead of %d" % (where, theirs, mine))
            group = row * groups + column // (columns // groups)
            their_group = row * (columns // group_size) + column // group_size
            wanted = float32_bits(scales[group] * mine + biases[group])
            got = float32_bits(their_scales[their_group] * theirs + their_biases[their_group])
            check(wanted == got, "%s: weights differ" % where)
    return rows * columns


def main():
    master_folder, slice_folder, width = sys.argv[1], sys.argv[2], int(sys.argv[3])
    master, cut_out = read_tensors(master_folder), read_tensors(slice_folder)
    settings = read_json(master_folder, "config.json")["quantization_config"]
    config = read_json(slice_folder, "config.json")
    quantization = config["quantization"]
    check(config["quantization_config"] == quantization, "the two quantization objects differ")
    check(quantization["bits"] == width, "bits are not the width")

    expected, weights, others = set(), 0, 0
    for name in master:
        stem, _, end = name.rpartition(".")
        if end == "codes":
            own = quantization.get(stem, quantization)
            weights += compare_linear(stem, master, cut_out, width, settings["slice_rule"], own["group_size"])
            expected.update(stem + part for part in (".weight", ".scales", ".biases"))
        elif not (len(end) == 2 and end[0] == "w" and end[1] in "2345678"):
            wanted = master.get("%s.w%d" % (name, width), master[name])
            check(cut_out.get(name) == wanted, name + " differs")
            expected.add(name)
            others += 1
    check(set(cut_out) == expected, "tensors that do not belong there: %s" % sorted(set(cut_out) ^ expected))
    check(weights > 0, "no quantized tensor")
    print("%d weights and %d other tensors are the same" % (weights, others))


main()
