# SPDX-License-Identifier: Apache-2.0
"""An outage that outlasts the spool: at its cap capturing stops, rows are taken all the same, and the
status says what that means; when the store is back the old chain is shipped to its end and a generation
of that cause begins, which holds everything."""

import struct
import time

from harness import oracle
from harness.archive import SEGMENT
from harness.foreign import sqlite3


def test_outage__the_spool_reaches_its_cap(scene):
    archive = scene.archive("dir")
    server = scene.server(archive, SPOOL_MAX_BYTES=1 << 20).start_ready()
    ledger = scene.rows(server, 20)
    server.wait_snapshot()
    first = server.wait_archived()["generation"]
    archive.break_off()
    server.insert("waits")
    server.wait_status(lambda s: s["store"]["state"] != "ok", "the outage")
    sqlite3(scene.database, "CREATE TABLE big (value);", "INSERT INTO big VALUES (randomblob(5 << 20));")
    status = server.wait_status(lambda s: s["alarm"] and "spool is full" in (s["reason"] or ""),
                                "the full spool to be told")
    assert status["ready"]
    scene.rows(server, 20, ledger)
    full = server.status()["spool"]["bytes"]
    sqlite3(scene.database, "INSERT INTO big VALUES (randomblob(5 << 20));")
    scene.rows(server, 5, ledger)
    assert server.status()["spool"]["bytes"] == full  # nothing is captured any more
    archive.mend()
    server.wait_status(lambda s: s["generation"] > first and s["snapshot"] and not s["alarm"],
                       "the next generation")
    server.wait_archived()
    server.stop_clean()
    assert len(archive.generation_ids()) == 2
    assert oracle.compare(scene.restored_rows(archive), scene.source(), ledger,
                          time.monotonic()).lost == 0
    old, new = (said_to_be_archived(archive, generation) for generation in archive.generation_ids())
    assert max(old) > (0, 0) and old == sorted(old), old
    assert new == sorted(new), new


def said_to_be_archived(archive, generation):
    """Of each segment in order: what its header says was archived when it was cut, in this generation: it
    tells a reader later what must not be missing."""
    said = []
    for key in sorted(key for key in archive.keys() if SEGMENT.match(key) and generation in key):
        wal_no, first = int(key.split("/")[2]), int(key.split("/")[3].split("-")[0])
        said.append(struct.unpack(">2I", archive.get(key)[112:120]))  # behind the frame's 8 bytes: 104
        assert said[-1] < (wal_no, first), f"{key}: {said[-1]}"
    return said
