#!/usr/bin/env python3
"""write_npy.py FILE: token ids as an .npy file of int32, a line of standard input each row."""

import struct
import sys

rows = [[int(word) for word in line.split()] for line in sys.stdin]
header = b"{'descr': '<i4', 'fortran_order': False, 'shape': (%d, %d), }" % (len(rows), len(rows[0]))
header += b" " * (-(len(header) + 11) % 64) + b"\n"
with open(sys.argv[1], "wb") as file:
    file.write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header)
    for row in rows:
        file.write(struct.pack("<%di" % len(rows[0]), *row))
