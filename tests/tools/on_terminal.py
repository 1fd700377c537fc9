#!/usr/bin/env python3
"""on_terminal.py COLUMNS COMMAND...

Runs a command whose stderr is a terminal of so many columns, and prints what it wrote there with control characters
spelled out: \\r, \\e and a line break after each rewriting of the line. Ends with the command's status.
"""
import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios


def main():
    columns, command = int(sys.argv[1]), sys.argv[2:]
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=slave, env={**os.environ, "TERM": "xterm"})
    os.close(slave)
    written = b""
    while True:
        try:
            piece = os.read(master, 65536)
        except OSError:  # the other side is closed
            break
        if not piece:
            break
        written += piece
    text = written.decode(errors="replace").replace("\r\n", "\n")
    print(text.replace("\r", "\\r").replace("\033", "\\e").replace("\\e[K", "\\e[K\n"), end="")
    sys.exit(process.wait())


main()
