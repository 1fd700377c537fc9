#!/usr/bin/env python3
"""signal_after.py SIGNAL WHEN COMMAND...

Runs a command and sends it SIGNAL (a name such as TERM, or two with a + between them: the second follows the first) when
WHEN has come to pass: a number is seconds after the start, anything else a regular expression that a line of its stderr
matches. Its output is passed on. Ends with the command's status, 128 + number when a signal killed it.
"""
import re
import signal
import subprocess
import sys
import threading
import time


def main():
    names, when, command = sys.argv[1].split("+"), sys.argv[2], sys.argv[3:]
    # A shell without job control has its background jobs ignore SIGINT; the command is not meant to inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, errors="replace")

    def send():
        for name in names:
            process.send_signal(getattr(signal, "SIG" + name))
            time.sleep(0.02)

    seconds = None
    try:
        seconds = float(when)
        timer = threading.Timer(seconds, send)
        timer.start()
    except ValueError:
        pass
    sent = seconds is not None
    for line in process.stderr:
        sys.stderr.write(line)
        if not sent and re.search(when, line):
            sent = True
            send()
    status = process.wait()
    if seconds is not None:
        timer.cancel()
    if not sent:
        sys.exit("signal_after.py: no line matched " + when)
    sys.exit(status if status >= 0 else 128 - status)


main()
