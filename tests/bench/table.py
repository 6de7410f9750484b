# SPDX-License-Identifier: Apache-2.0
"""The rows of the table: a median, its spread, the bound, the verdict."""

import json
import os
import platform
import time
from pathlib import Path

from measure import median


_LINE = "{:<64} {:>8} {:<5} {:>17}   {:<12} {:<12} {:<6} {}"


class Row:
    """values: one per repetition. The spread is from the lowest to the highest of them."""

    def __init__(self, name, values, bound=None, at_least=False, must=False, unit="",
                 strangers=(), details=None, note=""):
        self.name, self.values, self.bound, self.at_least = name, list(values), bound, at_least
        self.must, self.unit, self.note = must, unit, note
        self.strangers = max(strangers, default=None)  # of the least quiet repetition
        self.details = details or {}

    def holds(self, value):
        return value >= self.bound if self.at_least else value <= self.bound

    @property
    def verdict(self):
        if self.bound is None:
            return ""
        held = [self.holds(value) for value in self.values]
        return "met" if all(held) else "inconclusive" if any(held) else "MISSED"

    def number(self, value):
        digits = 0 if abs(value) >= 1000 else 1 if abs(value) >= 100 else 2
        return f"{value:.{digits}f}"

    def text(self):
        spread = f"{self.number(min(self.values))} - {self.number(max(self.values))}"
        bound = "" if self.bound is None else \
            (">= " if self.at_least else "<= ") + f"{self.bound:g}" + (" must" if self.must else "")
        others = "" if self.strangers is None else f"~{self.strangers:.2f}"
        return _LINE.format(self.name, self.number(median(self.values)), self.unit, spread, bound,
                            self.verdict, others, self.note and f"({self.note})").rstrip()

    def json(self):
        return {"name": self.name, "median": median(self.values), "values": self.values,
                "unit": self.unit, "bound": self.bound, "at_least": self.at_least,
                "must": self.must, "verdict": self.verdict, "note": self.note,
                "others_cores": self.strangers and round(self.strangers, 3),
                "details": self.details}


class Table:
    def __init__(self, quick, sizes):
        self.rows = []
        self.head = {"quick": quick, "sizes": sizes, "machine": machine(),
                     "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
        print(f"machine: {self.head['machine']}")
        print(f"sizes{' (QUICK: smaller than the bounds speak of)' if quick else ''}: {sizes}")
        print(_LINE.format("figure", "median", "", "spread", "bound", "verdict", "others", ""),
              flush=True)

    def add(self, row):
        self.rows.append(row)
        print(row.text(), flush=True)

    def failed(self, name, error):
        self.head.setdefault("not_measured", {})[name] = str(error)[:400]
        print(f"{name}: NOT MEASURED: {str(error)[:400]}", flush=True)

    def exit_status(self):
        """1 where something was not measured or a bound that must hold does not."""
        missed = [row for row in self.rows if row.must and row.verdict == "MISSED"]
        return 1 if missed or "not_measured" in self.head else 0

    def save(self, path):
        Path(path).write_text(json.dumps({**self.head, "rows": [row.json() for row in self.rows]},
                                         indent=1) + "\n")


def machine():
    model = next((line.split(":", 1)[1].strip() for line in
                  Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")),
                 platform.machine())
    memory = int(Path("/proc/meminfo").read_text().split()[1]) >> 20
    return f"{os.cpu_count()} x {model}, {memory} GiB, " \
           f"Linux {'.'.join(platform.release().split('.')[:2])}"
