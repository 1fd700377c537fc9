#!/usr/bin/env python3
"""read_plain.py MASTER SLICE WIDTH DTYPE [PATTERN=R...]: is SLICE (plain weights) the WIDTH-bit model of MASTER, each number
rounded to the nearest of DTYPE (BF16, F16, F32)? PATTERN=R as in slice --layer-bits.

Prints what it compared and ends with 0, or names the first difference and ends with 1.
"""
import sys

from checkpoint import Master, check, check_config, check_small_files, read_json, read_modules, rounded


def main():
    master = Master(sys.argv[1], int(sys.argv[3]), sys.argv[5:])
    cut_out, dtype = read_modules(sys.argv[2]), sys.argv[4]
    config = read_json(sys.argv[2], "config.json")
    check("quantization_config" not in config, "config.json says that it is quantized")
    check_config(master, config, (), dtype)
    check_small_files(master, sys.argv[2])
    weights, others = 0, master.plain(dtype)
    for prefix in master.prefixes:
        values = master.weights(prefix)
        wanted = (dtype, master.tensors[prefix + ".codes"][1], rounded(values, dtype))
        check(cut_out.get(prefix + ".weight") == wanted, prefix + ".weight differs")
        weights += len(values)
    for name, tensor in others.items():
        check(cut_out.get(name) == tensor, name + " differs")
    check(len(cut_out) == len(others) + len(master.prefixes), "tensors that do not belong there")
    check(weights > 0, "no quantized tensor")
    print("%d weights and %d other tensors are the same" % (weights, len(others)))


main()
