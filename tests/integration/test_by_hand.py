# SPDX-License-Identifier: Apache-2.0
"""Goal: the database can be rebuilt with `zstd` and `sqlite3` alone, as the README shows.

Method: the README's shell lines run over an archive that this test makes: clean, after a kill -9 and
restart, and with a hole, at which they must stop. The result equals what `restore` gives. The first
start on it needs HARVEY_ON_STALE=fork:GENERATION.
"""

import json
import re
import subprocess
import time

import pytest

from harness import env, oracle
from harness.archive import SEGMENT
from harness.forge import sealed
from harness.foreign import ForeignLoop, sqlite3
from harness.load import Ledger
from harness.process import clean_environment


def script():
    """The README's own lines: what a person would copy."""
    readme = (env.ROOT / "README.md").read_text(encoding="utf-8")
    match = re.search(r"```sh\n(# restore by hand[^`]*)```", readme)
    assert match, "the README has no block that begins with `# restore by hand`"
    return match[1]


def by_hand(scene, archive, generation):
    """Rebuilds into a new folder; the database's path and what the script said."""
    for tool in ("zstd", "sqlite3"):
        env.tool(tool)
    copy = archive if archive.kind == "dir" else archive.copy_to(scene.path("bucket"))
    folder = scene.path("by-hand")
    folder.mkdir()
    done = subprocess.run(["sh", "-c", script(), "by-hand", str(copy.path / generation),
                           str(folder / "state.db")], env=clean_environment(), cwd=folder,
                          capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "state.db", done.stdout + done.stderr


def written(scene, archive, kills=0, rows=120):
    """A server that wrote, was killed and went on; all archived; stopped. Ledger, generation."""
    ledger = Ledger()
    server = scene.server(archive, SHIP_INTERVAL_MS=5).start_ready()
    server.wait_snapshot()
    for _ in range(kills):
        load = scene.load(server, ledger, clients=3).start()
        load.wait_acks(rows)
        server.kill()
        load.stop()
        server.start_ready()
        server.wait_leader()
    scene.rows(server, rows, ledger)
    status = server.wait_archived()
    server.stop_clean()
    return ledger, status["generation"]


@pytest.mark.parametrize("kills", [0, 3])
def test_by_hand__equals_restore(scene, archive, kills):
    ledger, generation = written(scene, archive, kills)
    database, said = by_hand(scene, archive, generation)
    assert "gap" not in said, said
    rows = oracle.read_rows(database)
    assert oracle.compare(rows, scene.source(), ledger, time.monotonic()).lost == 0
    result = scene.restore_aside(archive).expect(0)
    assert oracle.read_rows(result.target) == rows
    assert oracle.dump_hash(result.target) == oracle.dump_hash(database)


def test_by_hand__many_wals(scene):
    """Several WAL resets between snapshot and end: each WAL is applied in turn."""
    archive = scene.archive("dir")
    server = scene.server(archive, SHIP_INTERVAL_MS=5).start_ready()
    server.wait_snapshot()
    ledger = Ledger()
    load = scene.load(server, ledger, clients=3).start()
    sqlite3(scene.database, ".timeout 5000", "CREATE TABLE churn(x);")
    churn = ForeignLoop(scene.database,
                        ["INSERT INTO churn VALUES(randomblob(3000000)); DELETE FROM churn;"])
    with churn:
        server.wait_status(lambda s: s["local"]["wal_no"] >= 4, "three WAL resets", limit_s=120)
    load.stop()
    generation = server.wait_archived()["generation"]
    server.stop_clean()
    assert len({match["wal"] for match in archive.segments()}) >= 3
    database, said = by_hand(scene, archive, generation)
    assert "gap" not in said, said
    assert oracle.compare(oracle.read_rows(database), scene.source(), ledger,
                          time.monotonic()).lost == 0


def test_by_hand__stops_at_a_hole(scene):
    """An object is missing: what is built ends before it, as a prefix, and the loop says so."""
    archive = scene.archive("dir")
    ledger, generation = written(scene, archive, rows=200)
    segments = [m for m in archive.segments() if m["generation"] == generation]
    assert len(segments) > 3
    victim = scene.random.choice(segments[1:-1])
    archive.delete(victim.string)
    database, said = by_hand(scene, archive, generation)
    assert "gap" in said, said
    rows = oracle.read_rows(database)
    assert rows == scene.source()[:len(rows)] and len(rows) < len(ledger.acks)


def test_by_hand__first_start_needs_a_fork(scene, archive):
    """No marker lies beside it: the start refuses and names the setting that goes on; with it a new
    generation begins, and what follows is restorable."""
    _, generation = written(scene, archive)
    database, _ = by_hand(scene, archive, generation)
    rows = oracle.read_rows(database)
    scene.wipe()
    database.rename(scene.database)
    before = archive.list()
    server = scene.server(archive).start()
    server.wait_not_ready(f"HARVEY_ON_STALE=fork:{generation}")
    assert archive.list() == before
    server.stop_clean()
    server = scene.server(archive, ON_STALE=f"fork:{generation}").start_ready()
    ledger = scene.rows(server, 20)
    status = server.wait_archived()
    assert status["generation"] != generation
    server.wait_snapshot()
    server.stop_clean()
    restored = scene.restored_rows(archive)
    assert restored[:len(rows)] == rows
    assert oracle.compare(restored, None, ledger, time.monotonic()).lost == 0
    # the setting names the generation it overrode: left in place it does not act again
    server = scene.server(archive, ON_STALE=f"fork:{generation}").start_ready()
    assert server.wait_archived()["generation"] == status["generation"]
    server.stop_clean()


def test_by_hand__object_names_hold_no_surprise(scene, archive):
    """Every object's name is one that the format page lists."""
    written(scene, archive, kills=1)
    known = (SEGMENT.pattern, r"^generations/\d{8}\.json$",
             r"^\d{8}-[0-9a-f]{16}/leads/\d{10}\.json$",
             r"^\d{8}-[0-9a-f]{16}/snapshots/\d{10}-\d{10}-[0-9a-f]{8}/"
             r"(complete\.json|part-\d{10}\.db\.zst)$")
    for key in archive.keys():
        assert any(re.match(pattern, key) for pattern in known), key


def test_by_hand__sums_of_the_json(scene, archive):
    """Each JSON object of the archive has the sum that docs/archive-format.md describes."""
    written(scene, archive, rows=5)
    keys = [key for key in archive.keys() if key.endswith(".json")]
    assert {key.rpartition("/")[2].strip("0123456789") for key in keys} == {".json", "complete.json"}
    for key in keys:
        value = json.loads(archive.get(key))
        assert value["sha256"] == json.loads(sealed(value))["sha256"], key
