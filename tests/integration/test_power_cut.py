# SPDX-License-Identifier: Apache-2.0
"""What a power cut would find. A kill -9 keeps the page cache, so the order of syncs and names is looked
at instead: a library between the programs and the kernel (sync_log.c) writes them down.

  - a WAL reset is noted only when every segment that waits in the spool has been synced, and the folders
    down to it: the reset takes the frames' only other copy;
  - a snapshot's local complete.json gets its name when its parts are on the disk;
  - a restored database gets its name when its bytes, its size and its marker are there.
The same for single modules, call by call: tests/unit/test_durability.c.
"""

import os
import shlex
import sqlite3
import subprocess

import pytest

from harness import env
from harness.foreign import sqlite3 as sqlite3_program
from harness.process import clean_environment
from harness.wait import until

pytestmark = pytest.mark.skipif(env.is_slow_build(), reason="sanitizers come between us and the kernel")


class Watched:
    """Programs under sync_log.c, and what they did, as (word, path, ...) in order."""

    def __init__(self, scene):
        self.library = scene.path("sync_log.so")
        subprocess.run([*shlex.split(os.environ.get("CC", "gcc")), "-std=gnu17", "-D_GNU_SOURCE", "-O1",
                        "-shared", "-fPIC", "-o", self.library,
                        env.ROOT / "tests/integration/sync_log.c"], check=True)
        self.log = scene.path("syncs")

    def variables(self):
        return {"LD_PRELOAD": str(self.library), "SYNC_LOG": str(self.log)}

    def server(self, scene, archive, **settings):
        server = scene.server(archive, **settings)
        plain = server.environment
        server.environment = lambda: {**plain(), **self.variables()}
        return server

    def events(self):
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [tuple(line.split(" ")) for line in lines]


def folders_between(path, top):
    folder = os.path.dirname(path)
    while len(folder) >= len(top):
        yield folder
        folder = os.path.dirname(folder)


def check_resets(events, spool):
    """At each note that a reset follows: what waits in the spool, unsynced? Returns how many notes there
    were with something that waited."""
    waiting, telling, last = {}, 0, None  # path -> the folders (and itself) that were not synced since
    for event in events:
        if event[0] == "name" and event[2].startswith(f"{spool}/") and ".tmp/" not in event[2]:
            waiting[event[2]] = {event[2], *folders_between(event[2], spool)}
        elif event[0] == "name":  # perhaps into the archive, under the same key: that is as good
            waiting.pop(spool + event[2][event[2].rfind("/", 0, event[2].rfind("/wal/")):], None)
        elif event[0] == "gone":
            waiting.pop(event[1], None)
        elif event[0] == "sync":
            for unsynced in waiting.values():
                unsynced.discard(event[1])
        elif event[0] == "reset" and event[2] != last:  # a later record repeats it
            last = event[2]
            lost = {path: sorted(unsynced) for path, unsynced in waiting.items() if unsynced}
            assert not lost, f"a reset follows, and these are not on the disk: {lost}"
            telling += bool(waiting)
    return telling


def grow(scene, megabytes):
    """A transaction of that size by a foreign writer: the WAL passes its limits."""
    sqlite3_program(scene.database, "PRAGMA cache_size=-65536;", "CREATE TABLE big (value);",
                    f"INSERT INTO big VALUES (randomblob({megabytes << 20}));")


def test_power_cut__a_freeze_notes_a_reset(scene):
    """The archive is away, so segments wait, and the WAL grows past the size at which it is begun anew."""
    watched = Watched(scene)
    archive = scene.archive("dir")
    server = watched.server(scene, archive).start_ready()
    scene.rows(server, 20)
    server.wait_snapshot()
    server.wait_archived()
    archive.break_off()
    server.insert("waits")
    server.wait_status(lambda s: s["store"]["state"] != "ok", "the outage")
    resets = server.status()["counters"]["wal_resets"]
    grow(scene, 20)
    server.wait_status(lambda s: s["counters"]["wal_resets"] > resets, "the WAL to begin anew")
    assert check_resets(watched.events(), f"{scene.database}-harvey/spool") > 0
    archive.mend()
    server.wait_archived()
    server.stop_clean()


def test_power_cut__a_start_notes_a_reset(scene):
    """The leader before was killed, its segments wait, and the WAL has been checkpointed: the new one
    starts at mark 0, and lets the WAL begin anew itself. (SQLite's own fsyncs of the killed one count for
    nothing here: the log begins with the second life.)"""
    archive = scene.archive("dir")
    first = scene.server(archive).start_ready()
    scene.rows(first, 20)
    first.wait_snapshot()
    first.wait_archived()
    archive.break_off()
    scene.rows(first, 20)
    first.wait_status(lambda s: s["store"]["state"] != "ok" and s["spool"]["segments"] > 0, "a spool")
    reader = sqlite3.connect(scene.database)  # stays: whoever closes last would take the -wal away
    reader.execute("SELECT count(*) FROM sqlite_schema").fetchall()
    first.kill()
    _, frames, done = reader.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    assert frames == done > 0
    spool = f"{scene.database}-harvey/spool"
    there = [("name", "before", str(path)) for path in scene.volume.rglob("*.wal.zst")]
    assert there
    watched = Watched(scene)
    second = watched.server(scene, archive).start_ready()
    until(lambda: any(event[0] == "reset" for event in watched.events()), "the note of a reset")
    assert check_resets(there + watched.events(), spool) > 0
    reader.close()
    archive.mend()
    second.wait_archived()
    second.stop_clean()


def named_safely(events, name, folder=True):
    """The file was synced under the name that it had before, and its folder afterwards."""
    named = max(i for i, event in enumerate(events) if event[0] == "name" and event[2] == name)
    assert ("sync", events[named][1]) in events[:named], f"{name}: not synced before it got its name"
    if folder:
        assert ("sync", os.path.dirname(name)) in events[named:], f"{name}: its folder was not synced"
    return named


def test_power_cut__a_packed_snapshot(scene):
    """The local copy outlives a crash, so it must be whole when it says that it is."""
    watched = Watched(scene)
    server = watched.server(scene, scene.archive("dir")).start_ready()
    scene.rows(server, 20)
    server.wait_snapshot()
    server.stop_clean()
    events = watched.events()
    local = f"{scene.database}-harvey/snapshot/"
    complete = {event[2] for event in events if event[0] == "name" and event[2].startswith(local)
                and event[2].endswith("/complete.json")}
    assert complete
    for name in complete:
        named = named_safely(events, name)
        assert any(event[0] == "sync" and event[1].startswith(os.path.dirname(name) + "/part-")
                   for event in events[:named]), "the parts were not synced before"


def test_power_cut__a_restore(scene):
    archive = scene.archive("dir")
    server = scene.server(archive).start_ready()
    scene.rows(server, 20)
    server.wait_snapshot()
    server.wait_archived()
    server.stop_clean()
    watched = Watched(scene)
    folder = scene.path("restored")
    folder.mkdir()
    target = folder / "state.db"
    done = subprocess.run([env.program("restore"), "--to-latest", "-o", target], capture_output=True,
                          text=True, timeout=300,
                          env=clean_environment(**archive.environment(), **watched.variables()))
    assert done.returncode == 0, done.stderr
    events = watched.events()
    named = named_safely(events, str(target))
    marker = named_safely(events, f"{target}-harvey/restored.json")
    assert marker < named, "the marker comes before the database"
