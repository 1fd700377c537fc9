"""The machine that the benches run on: what it is, what others do on it, and what a program takes (standard library only).

usage: bench_machine.py time COMMAND...   the command's JSON, and with it "command", its "processor_seconds", what share of the
       processors "others" used meanwhile, the "date" and the "machine"
"""
import datetime
import json
import os
import pathlib
import re
import resource
import subprocess
import sys
import time
import typing

DISTURBED = 0.05  # others' share of the processors from which on times of the wall are not to be trusted


def busy_seconds():
    """Seconds that anybody has used so far of the processors that this script may run on, and those that this script and its
    children have."""
    lines = pathlib.Path("/proc/stat").read_text().split("\n")
    wanted = {f"cpu{index}" for index in os.sched_getaffinity(0)}
    ticks = [[int(field) for field in fields[1:]] for fields in map(str.split, lines) if fields and fields[0] in wanted]
    if not ticks:
        sys.exit("bench: /proc/stat does not say what these processors do")
    everybody = sum(sum(one[:8]) - one[3] - one[4] for one in ticks) / os.sysconf("SC_CLK_TCK")  # all but idle and iowait
    own = 0.0
    for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
        usage = resource.getrusage(who)
        own += usage.ru_utime + usage.ru_stime
    return everybody, own


class Others:
    """What share of those processors others used since this was made."""

    def __init__(self):
        self.begin, self.start = busy_seconds(), time.monotonic()

    def share(self):
        everybody, own = (now - then for now, then in zip(busy_seconds(), self.begin))
        return max(0.0, (everybody - own) / ((time.monotonic() - self.start) * len(os.sched_getaffinity(0))))


def wait_for_quiet(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        others = Others()
        time.sleep(2)
        if others.share() < DISTURBED:
            return


def machine():
    model = re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())
    return {"cpu": model.group(1) if model else "unknown processor", "cores": len(os.sched_getaffinity(0))}


class Run(typing.NamedTuple):
    printed: str
    seconds: float
    processor_seconds: float
    max_rss: int


def command(*words):
    """Runs a command to its end."""
    start = time.monotonic()
    process = subprocess.Popen([str(word) for word in words], stdout=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL)
    printed = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        sys.exit(f"bench: {' '.join(str(word) for word in words)} ended with status {process.returncode}")
    return Run(printed, time.monotonic() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)


def machine_line():
    return f"{machine()['cpu']}, {machine()['cores']} cores"


def stamp():
    """When and on what machine something was measured."""
    return {"date": datetime.date.today().isoformat(), "machine": machine_line()}


def timed(words):
    others = Others()
    run = command(*words)
    json.dump({**json.loads(run.printed), "command": " ".join(words), "processor_seconds": run.processor_seconds,
               "others": others.share(), **stamp()}, sys.stdout, indent=1)


if __name__ == "__main__":
    if sys.argv[1:2] != ["time"] or len(sys.argv) < 3:
        sys.exit(__doc__)
    timed(sys.argv[2:])
