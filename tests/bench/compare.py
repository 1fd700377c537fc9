#!/usr/bin/env python3
"""What scripts/bench.sh makes of the JSON of an earlier run: --compare's ratios, and which parts --resume need not measure.

  compare.py SCRIPTS
"""
import contextlib
import io
import json
import pathlib
import sys
import tempfile
import types
import unittest

SCRIPTS = sys.argv.pop(1)
sys.path.insert(0, SCRIPTS)
import bench_run  # noqa: E402


def results(gflops, gemm="f32", threads=2):
    run = {"shape": "demo", "settings": {"threads": threads}, "bare_gflops": 100.0, "loop_gflops": gflops, "others": 0.5}
    return {"version": "1", "date": "2026-01-02", "repeats": 5, "settings": {"gemm": gemm}, "machine": {"cpu": "fast"},
            "learn": [run], "refit": [{"shape": "demo", "threads": threads, "tokens_a_second": 2 * gflops, "gflops": 1.0}],
            "files": {"demo": {"rates": {"cp": 3000.0}, "bytes": 7, "others": 0.1}}}


def compared(old, new):
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        bench_run.print_comparison(old, new)
    lines = [line.rsplit(None, 3) for line in printed.getvalue().splitlines() if line.startswith("  ") and "/" in line]
    return printed.getvalue(), {name.strip(): [float(number) for number in numbers] for name, *numbers in lines}


class Compare(unittest.TestCase):
    def test_ratios(self):
        said, rows = compared(results(50.0), results(80.0))
        self.assertIn("Beside 1 of 2026-01-02 on fast", said)
        self.assertEqual(rows["demo, f32, 2 threads/loop_gflops"], [50.0, 80.0, 1.6])
        self.assertEqual(rows["demo, f32, 2 threads/bare_gflops"], [100.0, 100.0, 1.0])
        self.assertEqual(rows["refit, demo, f32, 2 threads/tokens_a_second"], [100.0, 160.0, 1.6])
        self.assertEqual(rows["files/demo/rates/cp"], [3000.0, 3000.0, 1.0])
        self.assertFalse([name for name in rows if name.endswith(("others", "bytes"))])

    def test_other_products_and_threads_are_no_ratio(self):
        for other in (results(50.0, gemm="bf16"), results(50.0, threads=1)):
            said, rows = compared(other, results(80.0))
            self.assertIn("no blocks or refit that both measured", said)
            self.assertEqual(list(rows), ["files/demo/rates/cp"])

    def take_up(self, **changes):
        fresh = {key: results(1.0)[key] for key in ("version", "date", "repeats", "settings", "machine")}
        with tempfile.TemporaryDirectory() as folder:
            out = pathlib.Path(folder) / "bench.json"
            out.write_text(json.dumps({**results(50.0), **changes}))
            left = bench_run.take_up(fresh, ["learn", "memory"], types.SimpleNamespace(out=out))
        return left, fresh

    def test_resumes(self):
        left, taken = self.take_up()
        self.assertEqual(left, ["memory"])
        self.assertEqual(taken["learn"][0]["loop_gflops"], 50.0)
        for changes in ({"date": "2026-01-01"}, {"settings": {"gemm": "bf16"}}, {"machine": {"cpu": "slow"}}):
            left, taken = self.take_up(**changes)
            self.assertEqual(left, ["learn", "memory"])
            self.assertNotIn("learn", taken)


if __name__ == "__main__":
    unittest.main()
