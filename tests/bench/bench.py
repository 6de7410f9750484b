#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Measures what Harvey costs and prints one table: each figure a ratio of two things measured in
turn in this run, its spread, its bound, and whether that is met. See README.md.

usage: bench.py [--quick] [--json FILE] [GROUP...]
"""

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

from measure import ROOT  # first: it finds the harness
import pytest
from harness.minio import MinIO
from harness.scene import Scene
from lag_rows import lag_rows, store_rows
from load_rows import door_row, group_commit_row, half_load_rows, insert_rows, saturated_rows
from pause_rows import pause_rows
from restoring import Source, restore_rows, stored_row
from session import Session
from standing_rows import memory_rows, quiet_rows
from table import Table

SIZES = {True: {"database_mib": 96, "wal_mib": 20}, False: {"database_mib": 1024, "wal_mib": 200}}


def restoring(session):
    sizes = SIZES[session.quick]
    source = Source(session.scene, sizes["database_mib"], sizes["wal_mib"])
    restore_rows(session.table, source, session.repetitions)
    stored_row(session.table, source)
    source.packed.unlink()
    shutil.rmtree(source.archive.path)


GROUPS = {
    "insert": insert_rows,
    "commit": group_commit_row,
    "door": door_row,
    "saturated": saturated_rows,
    "half": half_load_rows,
    "pause": pause_rows,
    "lag": lag_rows,
    "store": store_rows,
    "restore": restoring,
    "memory": lambda session: memory_rows(session, SIZES[session.quick]["database_mib"]),
    "quiet": quiet_rows,
}


class SharedMinIO:
    """Starts when first asked for."""

    def __init__(self, folder):
        self.folder, self.minio = folder, None

    def __call__(self):
        self.minio = self.minio or MinIO(self.folder / "minio").start_ready()
        return self.minio

    def stop(self):
        if self.minio:
            self.minio.stop()


def options():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="about three minutes, a small database")
    parser.add_argument("--json", metavar="FILE", help="all values and details, for plots.py too")
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=", ".join(GROUPS))
    chosen = parser.parse_args()
    unknown = set(chosen.groups) - set(GROUPS)
    if unknown:
        parser.error(f"no group is called {', '.join(sorted(unknown))}: {', '.join(GROUPS)}")
    return chosen


def main():
    chosen = options()
    if not (ROOT / "bin" / "server").is_file():
        sys.exit("bin/server is not built: make build")
    folder = Path(tempfile.mkdtemp(prefix="harvey-bench-"))
    minio = SharedMinIO(folder)
    scene = Scene(folder, 0, minio)
    table = Table(chosen.quick, SIZES[chosen.quick])
    session = Session(table, scene, chosen.quick)
    took_s = table.head["took_s"] = {}
    try:
        for name in chosen.groups or GROUPS:
            begun = time.monotonic()
            try:
                GROUPS[name](session)
            except (Exception, pytest.skip.Exception, pytest.fail.Exception) as error:
                table.failed(name, error)
            took_s[name] = round(time.monotonic() - begun)
    finally:
        scene.end()
        minio.stop()
        shutil.rmtree(folder, ignore_errors=True)
    print(f"took {sum(took_s.values()) / 60:.1f} minutes, in seconds: {took_s}")
    if chosen.json:
        table.head["plots"] = session.plots
        table.save(chosen.json)
    return table.exit_status()


if __name__ == "__main__":
    sys.exit(main())
