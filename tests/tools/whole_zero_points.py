#!/usr/bin/env python3
"""whole_zero_points.py MASTER OUT WIDTH: a copy of the master in which every group of this width has a whole zero point:
scales rounded to 6 significant bits, biases to minus a multiple of them from 0 to 2^WIDTH - 1.
"""
import json
import math
import os
import shutil
import struct
import sys

from checkpoint import halves

folder, out, width = sys.argv[1], sys.argv[2], int(sys.argv[3])
shutil.copytree(folder, out)
path = os.path.join(out, "model.safetensors")
with open(path, "rb") as file:
    data = bytearray(file.read())
(length,) = struct.unpack_from("<Q", data)
header = json.loads(data[8:8 + length])
for name, entry in header.items():
    if not name.endswith(".scales.w%d" % width):
        continue
    begin, end = (8 + length + offset for offset in entry["data_offsets"])
    partner = header[name.replace(".scales.", ".biases.")]["data_offsets"]
    scales, biases = halves(data[begin:end]), halves(data[8 + length + partner[0]:8 + length + partner[1]])
    coarse = []
    for scale in scales:
        fraction, exponent = math.frexp(scale)
        coarse.append(math.ldexp(round(fraction * 64), exponent - 6))
    zeros = [min(max(round(-b / s), 0), 2 ** width - 1) for s, b in zip(coarse, biases)]
    data[begin:end] = struct.pack("<%de" % len(coarse), *coarse)
    data[8 + length + partner[0]:8 + length + partner[1]] = struct.pack(
        "<%de" % len(zeros), *(-z * s for z, s in zip(zeros, coarse)))
with open(path, "wb") as file:
    file.write(data)
