#!/usr/bin/env python3
"""What the scripts that write tables into RESULTS.md do with rows that are there, with labels, and with minutes.

  tables.py SCRIPTS
"""
import contextlib
import io
import json
import pathlib
import sys
import tempfile
import unittest

SCRIPTS = sys.argv.pop(1)
sys.path.insert(0, SCRIPTS)
import bench_recipes_table as tables  # noqa: E402

RUN = {"memory_peak": 2**20, "memory_predicted": 2**21, "seconds": 90.0, "others": 0.01, "state": None, "gemm": "openblas (x)"}
MADE = {"tool": "matquant 1", "recipe": {"samples": 4, "seq_len": 32, "epochs": 1},
        "calibration": {"files": [{"file": "c.jsonl"}]}}
TEXT = {"text": "/a/t.txt", "windows": 2, "seq_len": 64, "perplexity": 9.0}


class Section(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = pathlib.Path(folder.name) / "RESULTS.md"

    def write(self, *rows):
        head = ["<!-- x: begin -->", "### Model", "", "| recipe | int8 |", "|---|---|"]
        with contextlib.redirect_stdout(io.StringIO()):
            tables.write_section(self.path, [*head, *rows, "<!-- x: end -->"])

    def test_rows_change_and_come_and_what_is_around_stays(self):
        self.path.write_text("# Results\n\nbefore\n")
        self.write("| best | 1 |")
        self.path.write_text(self.path.read_text() + "\n| best | by hand |\n")
        self.write("| best | 2 |", "| rtn | 3 |")
        self.assertEqual(self.path.read_text(), "# Results\n\nbefore\n\n<!-- x: begin -->\n### Model\n\n| recipe | int8 |\n"
                         "|---|---|\n| best | 2 |\n| rtn | 3 |\n<!-- x: end -->\n\n| best | by hand |\n")

    def test_rows_do_not_go(self):
        self.write("| best | 1 |", "| best | by hand |")
        old = self.path.read_text()
        for rows in (("| best | 2 |",), ("| best | 2 |", "| rtn | 3 |"), ()):
            with self.assertRaisesRegex(SystemExit, "Model: .* beginning with 'best'"):
                self.write(*rows)
        self.assertEqual(self.path.read_text(), old)


class Recipes(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.work = pathlib.Path(folder.name)
        self.put("m-full.json", TEXT)

    def put(self, name, value):
        (self.work / name).parent.mkdir(exist_ok=True)
        (self.work / name).write_text(json.dumps(value))

    def row(self, name, date, **changes):
        self.put(f"{name}.json", {**RUN, "date": date, "machine": "fast", **changes})
        self.put(f"{name}/matquant.json", MADE)
        self.put(f"{name}-w8.json", {**TEXT, "perplexity": 10.0, "date": date, "machine": "fast"})

    def table(self):
        return tables.model_table(tables.rows_of(self.work, "m"), TEXT)

    def test_labels_are_rows_the_newest_first(self):
        self.row("m-best", "2026-01-01")
        self.row("m-best@a.b", "2026-01-03")
        self.row("m-best@c", "2026-01-02")
        self.row("m-rtn", "2026-01-04")
        self.assertEqual([line.split(" | ")[0][2:] for line in self.table() if line.startswith("| ")][1:],
                         ["best, a.b", "best, c", "best", "rtn"])
        lines = tables.runs_lines(self.work, [], tables.rows_of(self.work, "m"))
        self.assertEqual(lines, ["- no label: matquant 1; fast; 2026-01-01 to 2026-01-04.", "- a.b: matquant 1; fast; 2026-01-03.",
                                 "- c: matquant 1; fast; 2026-01-02."])

    def test_minutes(self):
        self.assertEqual(tables.minutes(RUN), "1.5")
        self.assertEqual(tables.minutes({**RUN, "state": {"blocks": 0, "widths": 0}}), "1.5")
        for changes in ({"others": 0.2}, {"state": {"blocks": 3, "widths": 0}}, {"state": {"blocks": 0, "widths": 1}}):
            self.assertEqual(tables.minutes({**RUN, **changes}), "-")
        self.assertEqual(tables.minutes({key: RUN[key] for key in RUN if key != "others"}), "-")

    def test_other_windows_are_no_row(self):
        self.row("m-best", "2026-01-01")
        self.put("m-best-w8.json", {**TEXT, "windows": 3})
        with self.assertRaises(SystemExit):
            self.table()


if __name__ == "__main__":
    unittest.main()
