# SPDX-License-Identifier: Apache-2.0
"""Restore beside `zstd -d`: an archive as a server makes it, of a database with random text rows and
then WAL from updates at random places and appended rows."""

import os
import sqlite3
import time
from pathlib import Path

from harness import env
from measure import Strangers, run
from table import Row

_ROWS = """WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count})
INSERT INTO test(value) SELECT lower(hex(randomblob(4))) || '-' || lower(hex(randomblob(2))) || '-4' ||
substr(lower(hex(randomblob(2))), 2) || '-a' || substr(lower(hex(randomblob(2))), 2) || '-' ||
lower(hex(randomblob(6))) FROM n;"""
_ROW_BYTES = 45  # of the app's table, in a full page


def make_database(path, megabytes):
    """The app's table with uuids, like those that the server makes."""
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA journal_mode=OFF")
    db.execute("PRAGMA synchronous=OFF")
    db.execute("CREATE TABLE test(id INTEGER PRIMARY KEY, value INT)")
    db.execute("BEGIN")
    db.execute(_ROWS.format(count=(megabytes << 20) // _ROW_BYTES))
    db.execute("COMMIT")
    db.execute("PRAGMA journal_mode=WAL")
    db.close()


def _write_wal(server, path, megabytes):
    """Commits of some 200 frames through a connection of its own, beside the server, with pauses so
    that the replicator is never far behind."""
    db = sqlite3.connect(path, isolation_level=None, timeout=30)
    db.execute("PRAGMA wal_autocheckpoint=0")
    db.execute("PRAGMA synchronous=OFF")
    last = db.execute("SELECT max(id) FROM test").fetchone()[0]
    for _ in range(max(1, megabytes * 256 // 200)):
        db.execute("BEGIN IMMEDIATE")
        db.execute("UPDATE test SET value = lower(hex(randomblob(18))) WHERE id IN (SELECT abs("
                   "random()) % ? + 1 FROM (SELECT 1 FROM test LIMIT 196))", (last,))
        db.execute("INSERT INTO test(value) SELECT lower(hex(randomblob(18))) FROM test LIMIT 300")
        db.execute("COMMIT")
        time.sleep(0.02)
    db.close()
    server.wait_archived(120)


class Source:
    """The archive, the database file as it ended, and `zstd -3` of that."""

    def __init__(self, scene, megabytes, wal_megabytes):
        self.scene, self.archive = scene, scene.archive("dir", "restore-source")
        make_database(scene.database, megabytes)
        server = scene.server(self.archive, SYNCHRONOUS="NORMAL", SHIP_INTERVAL_MS=1000)
        server.start_ready()
        server.wait_status(lambda s: s.get("snapshot"), "a complete snapshot", 300)
        server.wait_archived(120)
        _write_wal(server, scene.database, wal_megabytes)
        server.stop_clean()
        run(["sqlite3", scene.database, "PRAGMA wal_checkpoint(TRUNCATE)"])
        self.database = scene.path("final.db")
        os.rename(scene.database, self.database)
        self.packed = Path(f"{self.database}.zst")
        run(["zstd", "-q", "-3", self.database, "-o", self.packed])
        self.database_bytes = self.database.stat().st_size
        self.packed_bytes = self.packed.stat().st_size
        self.stored_bytes = sum((self.archive.path / key).stat().st_size
                                for key in self.archive.keys())
        self.objects = len(self.archive.keys())
        self.database.unlink()


def _sync_file(path):
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


def _settle():
    os.sync()  # no writeback of the last one while the next is measured


def _zstd(source, check):
    target = source.scene.path("zstd.db")
    _settle()
    start = time.monotonic()
    cpu_s = run(["zstd", "-q", "-d", source.packed, "-o", target]).cpu_s
    _sync_file(target)
    if check:
        checked = run(["sqlite3", target, "PRAGMA integrity_check"])
        assert checked.output.strip() == "ok", checked.output
        cpu_s += checked.cpu_s
    seconds = time.monotonic() - start
    target.unlink()
    return seconds, cpu_s


def _restore(source, integrity):
    folder = source.scene.path("restored")
    folder.mkdir()
    _settle()
    ran = run([env.program("restore"), "--to-latest", "--quiet", "--integrity", integrity, "-o",
               folder / "state.db"], cwd=folder,
              **{"HARVEY_ARCHIVE": source.archive.url, **source.scene.filesystem_settings()})
    run(["rm", "-rf", folder])
    return ran


def restore_rows(table, source, repetitions):
    peaks = []
    label = f"restore of {source.database_bytes >> 20} MiB"
    for integrity, rival in (("none", "zstd -d + fsync"), ("full", "the same + integrity_check")):
        ratios, strangers, ours, theirs, cpu, their_cpu = [], [], [], [], [], []
        for _ in range(repetitions):
            with Strangers() as others:
                seconds, cpu_s = _zstd(source, integrity == "full")
                ran = _restore(source, integrity)
            theirs.append(seconds)
            their_cpu.append(cpu_s)
            ours.append(ran.seconds)
            cpu.append(ran.cpu_s)
            peaks.append(ran.peak_rss_bytes / 2**20)
            ratios.append(ours[-1] / theirs[-1])
            strangers.append(others.cores)
        table.add(Row(f"{label}, --integrity {integrity} / {rival}", ratios, 1.2, must=True,
                      strangers=strangers, details={"restore_s": ours, "zstd_s": theirs,
                                                    "restore_cpu_s": cpu,
                                                    "zstd_cpu_s": their_cpu}))
        table.add(Row("  the same, CPU", [a / b for a, b in zip(cpu, their_cpu)],
                      strangers=strangers))
    table.add(Row("restore's peak RSS, of all these", peaks, 64, must=True, unit="MiB"))


def stored_row(table, source):
    table.add(Row("stored bytes / `zstd -3` of the database file",
                  [source.stored_bytes / source.packed_bytes], 1.3,
                  details={"stored_bytes": source.stored_bytes, "objects": source.objects,
                           "packed_bytes": source.packed_bytes}))
