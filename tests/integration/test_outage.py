# SPDX-License-Identifier: Apache-2.0
"""An outage that outlasts the spool: at its cap capturing stops, rows are taken all the same, and the
status says what that means; when the store is back the old chain is shipped to its end and a generation
of that cause begins, which holds everything."""

import struct
import time

import pytest

from harness import env, oracle
from harness.archive import SEGMENT
from harness.foreign import sqlite3
from harness.host import Faults
from harness.wait import until


def fill_the_spool(scene, server, archive):
    """Rows and a snapshot are archived, then the store goes, and a large transaction fills the spool. Gives
    the ledger and the generation."""
    ledger = scene.rows(server, 20)
    server.wait_snapshot()
    first = server.wait_archived()["generation"]
    archive.break_off()
    server.insert("waits")
    server.wait_status(lambda s: s["store"]["state"] != "ok", "the outage")
    sqlite3(scene.database, "CREATE TABLE big (value);", "INSERT INTO big VALUES (randomblob(5 << 20));")
    status = server.wait_status(tells_full_spool, "the full spool to be told")
    assert status["ready"]
    return ledger, first


def tells_full_spool(status):
    return status["alarm"] and "spool is full" in (status["reason"] or "")


def test_outage__the_spool_reaches_its_cap(scene):
    archive = scene.archive("dir")
    server = scene.server(archive, SPOOL_MAX_BYTES=1 << 20).start_ready()
    ledger, first = fill_the_spool(scene, server, archive)
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


@pytest.mark.skipif(env.is_slow_build(), reason="a preload does not go with a sanitizer")
@pytest.mark.parametrize("number", [1, 2, 3])
def test_outage__its_end_cannot_be_noted(scene, number):
    """The store is back, and one of the notes that the next generation takes fails, once (the second or third
    is its own): the lead does it again or starts over, and all rows come into the archive."""
    archive = scene.archive("dir")
    faults = Faults(scene, scene.volume)
    server = faults.on(scene.server(archive, SPOOL_MAX_BYTES=1 << 20)).start_ready()
    ledger, _ = fill_the_spool(scene, server, archive)
    archive.mend()
    server.wait_status(lambda s: s["counters"]["wal_resets"] > 0, "a WAL that it can begin with")
    faults.order("sync", first=number, only="-harvey/state")
    until(faults.failed, "the note to fail")
    scene.rows(server, 20, ledger)
    server.wait_status(lambda s: s["snapshot"] and not s["alarm"], "all in order")
    sqlite3(scene.database, ".timeout 5000", "INSERT INTO big VALUES (randomblob(5 << 20));")
    scene.rows(server, 20, ledger)
    server.wait_archived()
    server.stop_clean()
    assert oracle.compare(scene.restored_rows(archive), scene.source(), ledger,
                          time.monotonic()).lost == 0


@pytest.mark.skipif(env.is_slow_build(), reason="a preload does not go with a sanitizer")
def test_outage__another_trouble_does_not_hide_it(scene):
    """Something else goes wrong for a moment and is over: that rows are not archived is told all the same."""
    archive = scene.archive("dir")
    faults = Faults(scene, scene.volume)
    server = faults.on(scene.server(archive, SPOOL_MAX_BYTES=1 << 20)).start_ready()
    fill_the_spool(scene, server, archive)
    faults.order("stat", for_good=True, only="state.db-wal")
    server.wait_status(lambda s: "is held up" in s["reason"], "the other trouble to be told")
    faults.clear()
    until(lambda: "the trouble is over" in server.log(), "its end")
    server.wait_status(tells_full_spool, "the full spool to be told again", limit_s=5)
    archive.mend()
    server.wait_status(lambda s: s["snapshot"] and not s["alarm"], "the next generation")
    server.wait_archived()
    server.stop_clean()


def said_to_be_archived(archive, generation):
    """Of each segment in order: what its header says was archived when it was cut, in this generation: it
    tells a reader later what must not be missing."""
    said = []
    for key in sorted(key for key in archive.keys() if SEGMENT.match(key) and generation in key):
        wal_no, first = int(key.split("/")[2]), int(key.split("/")[3].split("-")[0])
        said.append(struct.unpack(">2I", archive.get(key)[112:120]))  # behind the frame's 8 bytes: 104
        assert said[-1] < (wal_no, first), f"{key}: {said[-1]}"
    return said
