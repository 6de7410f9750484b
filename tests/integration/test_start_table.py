# SPDX-License-Identifier: Apache-2.0
"""Goal: what a start makes of what it finds, row by row of the table in docs/archive-format.md: it
continues only what is proven, begins a generation where it must, and where a person has to
choose it waits, takes no write, leaves the archive alone, and names the cure, which works.

Method: each situation is made from outside with files, copies, the stock `sqlite3` and the store
taken away; then the server is started and watched, and the archive restored and compared. Test
names carry the row's number.
"""

import json
import os
import shutil
import time
from pathlib import Path

import pytest

from harness import env, oracle
from harness.archive import BucketArchive
from harness.foreign import sqlite3
from harness.load import Ledger
from harness.restoring import run_restore
from harness.server import GONE
from harness.wait import holds_for, until


# ---- situations ----
def lived(scene, archive, rows=60, stop="stop", **settings):
    """A life on the volume: rows written and archived, then stopped or killed. Ledger, status."""
    server = scene.server(archive, **settings).start_ready()
    server.wait_leader()
    ledger = scene.rows(server, rows)
    server.wait_snapshot()
    status = server.wait_archived()
    server.stop_clean() if stop == "stop" else server.kill()
    return ledger, status


def refuses_writes(server):
    """503 with Retry-After for every row, and alive."""
    for method in ("GET", "POST"):
        reply = server.request(method, "/", body="no" if method == "POST" else None)
        assert reply.code == 503, reply
        assert reply.headers.get("Retry-After"), reply
    assert server.request("GET", "/livez").code == 200
    server.check_alive()


def waits(scene, server, archive, *words):
    """Up, not ready, says the words, takes no write, leaves archive and database alone, and goes on
    like that for a while."""
    before = archive.list() if archive and archive_answers(archive) else None
    server.wait_not_ready(*words)
    files = {path: path.read_bytes() for path in scene.volume.glob("state.db*") if path.is_file()
             and not path.name.endswith("-shm")}
    started = time.monotonic()
    while time.monotonic() - started < 1.0:
        refuses_writes(server)
    status = server.status()
    assert not status["ready"] and status["reason"], status
    assert status["role"] not in ("leader", "follower"), status
    if before is not None:
        assert archive.list() == before, "a server that waits changed the archive"
    now = {path: path.read_bytes() for path in scene.volume.glob("state.db*") if path.is_file()
           and not path.name.endswith("-shm")}
    assert now == files, "a server that waits changed the database's files"
    return status


def archive_answers(archive):
    try:
        archive.keys()
        return True
    except GONE:
        return False


def goes_on(scene, server, archive, base, what, ledger=None):
    """Serves: takes rows, archives them, and a restore gives base + them."""
    server.wait_ready()
    server.wait_leader()
    ledger = scene.rows(server, 30, ledger)
    server.wait_snapshot()
    status = server.wait_archived()
    rows = scene.restored_rows(archive)
    assert rows[:len(base)] == base, what
    assert oracle.compare(rows, None, ledger, time.monotonic(), what).lost == 0
    server.stop_clean()
    assert scene.source() == rows
    return status


def write_in_place(target, source):
    """The same inode gets other bytes, as `cp` over a file does."""
    with open(target, "r+b") as file:
        file.write(Path(source).read_bytes())
        file.truncate()


def volume_in_place(scene, copy):
    """The whole volume's old contents, file by file into the same inodes."""
    for path in sorted(scene.volume.rglob("*"), reverse=True):
        twin = copy / path.relative_to(scene.volume)
        if path.is_file() and not twin.exists():
            path.unlink()
    for twin in sorted(copy.rglob("*")):
        path = scene.volume / twin.relative_to(copy)
        if twin.is_dir():
            path.mkdir(exist_ok=True)
        elif path.exists():
            write_in_place(path, twin)
        else:
            shutil.copy2(twin, path)


def sidecar(scene, name=""):
    return Path(f"{scene.database}-harvey") / name


def spool_files(scene):
    return sorted(path for path in sidecar(scene, "spool").rglob("*.wal.zst"))


def birth(archive, generation):
    return archive.get(f"generations/{generation[:8]}.json").decode()


# ---- row 1 ----
def test_start_table__01_a_wal_without_its_database(scene, archive):
    _, _ = lived(scene, archive, stop="kill")
    scene.database.unlink()
    wal = Path(f"{scene.database}-wal")
    data = wal.read_bytes()
    assert data
    server = scene.server(archive).start()
    waits(scene, server, archive, "-wal")
    assert wal.read_bytes() == data and not scene.database.exists()


def test_start_table__01_a_wal_alone_on_an_empty_archive(scene):
    archive = scene.archive("dir")
    Path(f"{scene.database}-wal").write_bytes(b"\x37\x7f\x06\x82" + bytes(4124))
    server = scene.server(archive).start()
    waits(scene, server, archive, "-wal")


# ---- row 2 ----
def test_start_table__02_the_spool_is_the_only_copy(scene):
    archive = scene.archive("dir")
    server = scene.server(archive).start_ready()
    scene.rows(server, 20)
    server.wait_archived()
    server.wait_snapshot()
    archive.break_off()
    scene.rows(server, 40)
    until(lambda: spool_files(scene), "segments in the spool")
    server.kill()
    archive.mend()
    archive.empty()
    for name in ("", "-wal", "-shm"):
        Path(f"{scene.database}{name}").unlink(missing_ok=True)
    spool = {path: path.read_bytes() for path in spool_files(scene)}
    server = scene.server(archive).start()
    waits(scene, server, archive, "spool")
    assert {path: path.read_bytes() for path in spool_files(scene)} == spool


# ---- rows 3 and 4 ----
def test_start_table__03_nothing_here_and_the_store_unreachable(scene):
    """Waits, creates no database; when the store answers, makes a first start (row 4)."""
    minio = scene.minio()
    archive = BucketArchive(minio)
    minio.stop()
    server = scene.server(archive).start()
    waits(scene, server, None)
    assert not scene.database.exists()
    minio.start_ready()
    goes_on(scene, server, archive, [], "first start after waiting")


def test_start_table__03_a_full_archive_that_is_unreachable_is_not_taken_for_empty(scene):
    archive = scene.archive("dir")
    _, _ = lived(scene, archive)
    archive.break_off()
    scene.wipe()
    server = scene.server(archive).start()
    waits(scene, server, None)
    assert not scene.database.exists()
    archive.mend()
    server.wait_not_ready("restore")
    assert len(archive.generations()) == 1


def test_start_table__04_first_start_says_that_nothing_lay_there(scene, archive):
    server = scene.server(archive).start_ready()
    log = server.log()
    line = [line for line in log.splitlines()
            if "warn" in line and archive.url in line and "nothing" in line.replace(archive.url, "")]
    assert line, f"no warning that names {archive.url}:\n{log}"
    status = goes_on(scene, server, archive, [], "first start")
    assert "first_start" in birth(archive, status["generation"])


def test_start_table__04_an_empty_file_counts_as_no_database(scene):
    archive = scene.archive("dir")
    scene.database.touch()
    server = scene.server(archive).start_ready()
    goes_on(scene, server, archive, [], "empty file")


def test_start_table__04_an_incomplete_snapshot_is_none(scene):
    """The server died inside its very first snapshot and the volume with it: nothing was ever
    promised, so this is a first start again, and a restore then finds the new life."""
    archive = scene.archive("dir")
    server = scene.server(archive, binary=env.hooks_program("server"),
                          TEST_FAILPOINT="snapshot_before_complete:1").start()
    until(lambda: not server.is_alive(), "it to die in its first snapshot")
    assert archive.keys() and not archive.complete_snapshots()
    scene.wipe()
    server = scene.server(archive).start_ready()
    goes_on(scene, server, archive, [], "first start over an incomplete snapshot")


# ---- row 5 ----
def test_start_table__05_empty_volume_waits_for_the_restore(scene, archive):
    """The heart of it: an empty volume under a full archive."""
    ledger, _ = lived(scene, archive)
    rows = scene.source()
    scene.wipe()
    before = archive.list()
    server = scene.server(archive).start()
    status = waits(scene, server, archive, "restore")
    assert status["role"] == "waiting for a restore"
    assert not scene.database.exists()
    assert oracle.compare(rows, rows, ledger, time.monotonic()).lost == 0
    scene.restore(archive).expect(0)  # at once the server may serve it: nobody else looks at the file
    goes_on(scene, server, archive, rows, "by itself after the restore")
    assert all(archive.list()[key] == before[key] for key in before), "objects never change"


@pytest.mark.parametrize("lost", ["the birth", "the complete snapshot"])
def test_start_table__05_a_full_archive_that_lost(scene, archive, lost):
    """The only birth, or the only complete.json, is gone: no empty database begins over what is left, and the
    tool does not call it empty."""
    lived(scene, archive)
    _, status = lived(scene, archive)  # segments that came after the snapshot: they tell of it
    keys = [key for key in archive.keys() if (key.startswith("generations/") if lost == "the birth"
                                              else key.endswith("/complete.json"))]
    assert len(keys) == 1, keys
    archive.delete(keys[0])
    scene.wipe()
    server = scene.server(archive).start()
    waiting = waits(scene, server, archive)
    assert "lost" in waiting["reason"] and f"new:{status['generation']}" in waiting["reason"], waiting
    server.stop_clean()
    result = scene.restore_aside(archive).expect(4)
    assert status["generation"] in result.stderr, result.describe()
    server = scene.server(archive, ON_EMPTY=f"new:{status['generation']}").start_ready()
    assert server.status()["rows"] == 0
    goes_on(scene, server, archive, [], "HARVEY_ON_EMPTY=new")


def test_start_table__05_on_empty_restore(scene, archive):
    lived(scene, archive)
    rows = scene.source()
    scene.wipe()
    server = scene.server(archive, ON_EMPTY="restore").start_ready()
    assert server.status()["rows"] == len(rows)
    goes_on(scene, server, archive, rows, "HARVEY_ON_EMPTY=restore")


def test_start_table__05_on_empty_new(scene, archive):
    """new:GENERATION begins with nothing, overriding that generation by name; another name does
    not act, and neither does the right one a second time."""
    _, status = lived(scene, archive)
    generation = status["generation"]
    scene.wipe()
    wrong = generation[:-1] + ("0" if generation[-1] != "0" else "1")
    server = scene.server(archive, ON_EMPTY=f"new:{wrong}").start()
    waits(scene, server, archive)
    server.stop_clean()
    server = scene.server(archive, ON_EMPTY=f"new:{generation}").start_ready()
    assert server.status()["rows"] == 0
    status = goes_on(scene, server, archive, [], "HARVEY_ON_EMPTY=new")
    assert generation in birth(archive, status["generation"]), "the birth names what it overrides"
    scene.wipe()
    server = scene.server(archive, ON_EMPTY=f"new:{generation}").start()
    waits(scene, server, archive)


def test_start_table__05_a_surviving_spool_is_shipped_first(scene):
    """Only the database died; what the spool holds and the store never got is not lost."""
    archive = scene.archive("dir")
    held = dies_with_a_spool(scene, archive)
    is_restored_with(scene, archive, held)


def test_start_table__05_a_spool_waits_for_what_it_follows(scene):
    """The archive's last object is away, as a stale listing hides it: what follows it in the spool is kept."""
    archive = scene.archive("dir")
    held = dies_with_a_spool(scene, archive)
    archived = sorted(archive.path.glob("*/wal/*/*.wal.zst"), key=last_position)
    for path in spool_files(scene):
        if path.name in [there.name for there in archived]:
            path.unlink()  # as a second of life more would have done
    spool, last = spool_files(scene), archived[-1]
    away = scene.path("away")
    last.rename(away)
    server = scene.server(archive).start()
    waits(scene, server, archive, f"lacks what {len(spool)} objects of this spool follow")
    server.stop_clean()
    assert spool_files(scene) == spool
    away.rename(last)
    is_restored_with(scene, archive, held)


def dies_with_a_spool(scene, archive):
    """Leaves a spool without its database; the acknowledged rows up to the spool's end."""
    server = scene.server(archive).start_ready()
    ledger = scene.rows(server, 20)
    server.wait_archived()
    server.wait_snapshot()
    archive.break_off()
    scene.rows(server, 40, ledger)
    server.wait_status(lambda s: s["spool"]["segments"] > 0, "a spool")
    server.kill()
    spooled = max(map(last_position, spool_files(scene)))
    held = [ack for ack in ledger.acks if position_number(ack.position) <= spooled]
    assert len(held) > 20, "the spool was to hold rows that the store lacks"
    archive.mend()
    for name in ("", "-wal", "-shm"):
        Path(f"{scene.database}{name}").unlink(missing_ok=True)
    return held


def is_restored_with(scene, archive, held):
    server = scene.server(archive, ON_EMPTY="restore").start_ready()
    server.wait_leader()
    server.wait_archived()
    server.stop_clean()
    rows = dict(scene.source())
    missing = [ack for ack in held if rows.get(ack.row) != ack.payload]
    assert not missing, f"{len(missing)} of {len(held)} rows of the spool are gone: {missing[0]}"


def last_position(spool_file):
    """(wal_no, last frame) by a spool file's name."""
    return int(spool_file.parent.name), int(spool_file.name.split("-")[1])


def position_number(text):
    return tuple(int(number) for number in text.split("/")[1:])


# ---- rows 6 and 7 ----
def test_start_table__06_restored_goes_on_as_a_child(scene, archive):
    _, status = lived(scene, archive)
    rows = scene.source()
    scene.wipe()
    result = scene.restore(archive).expect(0)
    assert sidecar(scene, "restored.json").exists()
    server = scene.server(archive).start_ready()
    server.wait_leader()
    child = goes_on(scene, server, archive, rows, "after the restore")
    assert child["generation"] != status["generation"]
    text = birth(archive, child["generation"])
    assert status["generation"] in text and "restored" in text, text
    assert result.positions()[0][0] == status["generation"]
    assert not sidecar(scene, "restored.json").exists()


def test_start_table__06_the_marker_stays_until_the_birth_is_put(scene):
    """Killed before it is, nothing else would tell that this database goes on from that archive."""
    archive = scene.archive("dir")
    lived(scene, archive)
    rows = scene.source()
    scene.wipe()
    scene.restore(archive).expect(0)
    obstacle = archive.path / "generations" / "00000002.json" / "in"
    obstacle.mkdir(parents=True)
    server = scene.server(archive).start_ready()
    server.wait_status(lambda s: s["store"]["state"] != "ok", "the birth that cannot be put")
    holds_for(sidecar(scene, "restored.json").exists, 0.5, "the marker before the birth is put")
    server.kill()
    obstacle.rmdir()
    obstacle.parent.rmdir()
    server = scene.server(archive).start_ready()
    goes_on(scene, server, archive, rows, "after the restore")
    until(lambda: not sidecar(scene, "restored.json").exists(), "the marker to go")


def test_start_table__06_restore_to_an_earlier_position_goes_on_as_a_child(scene):
    """Back to a position of yesterday on purpose: the start takes it as it was restored."""
    archive = scene.archive("dir")
    server = scene.server(archive, SHIP_INTERVAL_MS=0).start_ready()
    server.wait_snapshot()
    scene.rows(server, 20, clients=1)
    server.wait_archived()
    _, position = server.insert_position("the last one wanted")
    scene.rows(server, 20, clients=1)
    server.wait_archived()
    server.stop_clean()
    scene.wipe()
    scene.restore(archive, "--to-position", position).expect(0)
    rows = oracle.read_rows(scene.database)
    assert rows[-1][1] == "the last one wanted"
    server = scene.server(archive).start_ready()
    goes_on(scene, server, archive, rows, "after a restore to a position")


def test_start_table__06_an_older_generation_goes_on(scene):
    """A person restores an older generation by name and goes on: that choice is recorded, and
    "latest" is what came of it."""
    archive = scene.archive("dir")
    _, first = lived(scene, archive)
    rows = scene.source()
    scene.wipe()
    scene.restore(archive).expect(0)
    _, second = lived(scene, archive)
    assert second["generation"] != first["generation"]
    scene.wipe()
    scene.restore(archive, "--to-latest", "--generation", first["generation"]).expect(0)
    assert oracle.read_rows(scene.database) == rows
    server = scene.server(archive).start_ready()
    later = goes_on(scene, server, archive, rows, "an older generation by name")
    assert second["generation"] in birth(archive, later["generation"]), "names what it overrides"


def test_start_table__07_restored_but_the_archive_moved_on(scene, archive):
    """A test restore on a laptop, started by mistake beside the living server, does not become
    "latest"."""
    alive = scene.server(archive, name="alive").start_ready()
    ledger = scene.rows(alive, 30)
    alive.wait_archived()
    alive.wait_snapshot()
    laptop = scene.path("laptop")
    laptop.mkdir()
    run_restore(archive, laptop / "state.db").expect(0)
    scene.rows(alive, 30, ledger)
    generation = alive.wait_archived()["generation"]
    server = scene.server(archive, database=laptop / "state.db", name="laptop").start()
    server.wait_not_ready(f"fork:{generation}")
    refuses_writes(server)
    server.stop_clean()
    scene.rows(alive, 10, ledger)
    assert alive.wait_archived()["generation"] == generation
    alive.stop_clean()
    assert oracle.compare(scene.restored_rows(archive), scene.source(), ledger,
                          time.monotonic()).lost == 0


# ---- rows 8, 9, 10 ----
def foreign_database(scene, mode="delete", rows=5):
    sqlite3(scene.database, f"PRAGMA journal_mode={mode};", "CREATE TABLE theirs(a, b);",
            *[f"INSERT INTO theirs VALUES({n}, 'x');" for n in range(rows)])


def test_start_table__08_a_database_and_an_unreachable_store(scene):
    """Nothing proves what this database is: wait; when the (empty) store answers, adopt it."""
    minio = scene.minio()
    archive = BucketArchive(minio)
    minio.stop()
    foreign_database(scene)
    server = scene.server(archive).start()
    waits(scene, server, None)
    minio.start_ready()
    goes_on(scene, server, archive, [], "adopted after waiting")


def test_start_table__08_a_restored_database_and_an_unreachable_store(scene):
    archive = scene.archive("dir")
    lived(scene, archive)
    rows = scene.source()
    scene.wipe()
    scene.restore(archive).expect(0)
    archive.break_off()
    server = scene.server(archive).start()
    waits(scene, server, None)
    archive.mend()
    goes_on(scene, server, archive, rows, "restored, and the store came back")


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_start_table__09_an_existing_database_is_adopted(scene, archive, mode):
    foreign_database(scene, mode)
    server = scene.server(archive).start_ready()
    status = goes_on(scene, server, archive, [], "adopted")
    assert "adopted" in birth(archive, status["generation"])
    result = scene.restore_aside(archive).expect(0)
    assert sqlite3(result.target, "SELECT count(*) FROM theirs; PRAGMA journal_mode;") == "5\nwal"


def test_start_table__09_an_archive_of_another_name(scene):
    """The address changed to an empty place: the database goes there as a new generation."""
    old, new = scene.archive("dir"), scene.archive("dir")
    lived(scene, old)
    rows = scene.source()
    before = old.list()
    server = scene.server(new).start_ready()
    goes_on(scene, server, new, rows, "another archive")
    assert old.list() == before


@pytest.mark.parametrize("cure", ["fork", "restore"])
def test_start_table__10_a_database_of_unknown_origin(scene, archive, cure):
    """State lost (the -harvey folder is gone) under a full archive: not proven."""
    _, status = lived(scene, archive)
    rows = scene.source()
    shutil.rmtree(sidecar(scene))
    generation = status["generation"]
    server = scene.server(archive).start()
    said = waits(scene, server, archive, f"HARVEY_ON_STALE=fork:{generation}")
    assert "restore" in said["reason"]
    server.stop_clean()
    setting = "restore" if cure == "restore" else f"fork:{generation}"
    server = scene.server(archive, ON_STALE=setting).start_ready()
    goes_on(scene, server, archive, rows, setting)


def test_start_table__10_the_wrong_fork_does_not_act(scene):
    archive = scene.archive("dir")
    _, status = lived(scene, archive)
    shutil.rmtree(sidecar(scene))
    generation = status["generation"]
    wrong = generation[:-1] + ("0" if generation[-1] != "0" else "1")
    server = scene.server(archive, ON_STALE=f"fork:{wrong}").start()
    waits(scene, server, archive, generation)


def test_start_table__10_after_running_without_an_archive(scene):
    """HARVEY_ARCHIVE=none for a while, then the archive again: rows were written that no archive
    saw. It may begin a generation or refuse; it may not lose a row or pass for a continuation."""
    archive = scene.archive("dir")
    _, status = lived(scene, archive)
    server = scene.server(None).start_ready()
    assert server.status()["store"]["state"] == "off"
    scene.rows(server, 20)
    server.stop_clean()
    rows = scene.source()
    server = scene.server(archive).start()
    until(lambda: server.readyz(), "an answer")
    settled = server.wait_status(lambda s: s["role"] != "starting", "a decision")
    if not settled["ready"]:
        server.wait_not_ready(status["generation"])
        server.stop_clean()
        server = scene.server(archive, ON_STALE=f"fork:{status['generation']}").start_ready()
    later = goes_on(scene, server, archive, rows, "archive on again")
    assert later["generation"] != status["generation"]


# ---- row 11 ----
def test_start_table__11_ours_and_the_store_unreachable(scene):
    """Serves and captures at once; uploads after the comparison; the generation goes on."""
    minio = scene.minio()
    archive = BucketArchive(minio)
    ledger, status = lived(scene, archive)
    minio.stop()
    server = scene.server(archive).start_ready()
    scene.rows(server, 40, ledger)
    now = server.wait_status(lambda s: s["lag"]["frames"] > 0 and s["lag"]["ms"] > 0, "the lag")
    assert now["store"]["state"] in ("retrying", "down")
    minio.start_ready()
    server.wait_archived()
    assert server.status()["generation"] == status["generation"]
    assert oracle.compare(scene.restored_rows(archive), None, ledger, time.monotonic()).lost == 0
    server.stop_clean()


def test_start_table__11_kill_during_the_outage(scene):
    """Served during the outage, killed, started again, still during the outage; then all ships."""
    archive = scene.archive("dir")
    ledger, status = lived(scene, archive)
    archive.break_off()
    for _ in range(3):
        server = scene.server(archive).start_ready()
        scene.rows(server, 20, ledger)
        server.kill()
    server = scene.server(archive).start_ready()
    archive.mend()
    server.wait_archived()
    assert server.status()["generation"] == status["generation"]
    server.stop_clean()
    assert oracle.compare(scene.restored_rows(archive), scene.source(), ledger,
                          time.monotonic()).lost == 0


def noted(scene):
    """The state's newer record, as JSON (replicator/state.c)."""
    slots = (scene.database.parent / "state.db-harvey" / "state").read_bytes()[:8192]
    newest = max((slots[:4096], slots[4096:]), key=lambda slot: slot[16:24])
    try:
        return json.loads(newest[24:24 + int.from_bytes(newest[12:16], "big")])
    except ValueError as error:  # it is being written: not yet
        raise AssertionError("half a record") from error


@pytest.mark.parametrize("again", ["away", "back"])
def test_start_table__11_kill_after_a_reset_during_the_outage(scene, again):
    """The WAL was begun anew during the outage, and what came since lies in it alone: no lane was free, so
    no segment was cut. The notes have gone on (nothing says "a reset follows" any more); killed then, the
    next start knows the WAL all the same, with the archive and without it."""
    archive = scene.archive("dir")
    ledger, status = lived(scene, archive)
    archive.break_off()
    server = scene.server(archive).start_ready()
    scene.rows(server, 5, ledger)
    resets = server.status()["counters"]["wal_resets"]
    sqlite3(scene.database, "PRAGMA cache_size=-65536;", "CREATE TABLE big (value);",
            "INSERT INTO big VALUES (randomblob(20 << 20));")
    server.wait_status(lambda s: s["counters"]["wal_resets"] > resets, "the WAL to begin anew")
    scene.rows(server, 5, ledger)
    until(lambda: not noted(scene)["reset_follows"], "the note after the reset")
    server.kill()
    if again == "back":
        archive.mend()
    server = scene.server(archive).start_ready()
    scene.rows(server, 5, ledger)
    if again == "away":
        archive.mend()
    server.wait_archived()
    assert server.status()["generation"] == status["generation"]
    server.stop_clean()
    assert oracle.compare(scene.restored_rows(archive), scene.source(), ledger,
                          time.monotonic()).lost == 0


def test_start_table__11_the_new_wal_is_deleted(scene):
    """The same, and somebody deletes the -wal before the next start: its rows were nowhere else, so the
    database is not served without them."""
    archive = scene.archive("dir")
    lived(scene, archive)
    archive.break_off()
    server = scene.server(archive).start_ready()
    resets = server.status()["counters"]["wal_resets"]
    sqlite3(scene.database, "PRAGMA cache_size=-65536;", "CREATE TABLE big (value);",
            "INSERT INTO big VALUES (randomblob(20 << 20));")
    server.wait_status(lambda s: s["counters"]["wal_resets"] > resets, "the WAL to begin anew")
    scene.rows(server, 5)
    until(lambda: not noted(scene)["reset_follows"], "the note after the reset")
    server.kill()
    Path(f"{scene.database}-wal").unlink()
    archive.mend()
    server = scene.server(archive).start()
    waits(scene, server, archive, "-wal", "gone")


# ---- row 12 ----
def old_volume(scene, archive):
    """The volume as it was some rows ago, back in the same inodes. Rows of then and of the archive,
    the archive's newest generation."""
    lived(scene, archive, rows=30)
    copy = scene.copy_volume()
    old = scene.source()
    _, status = lived(scene, archive, rows=40)
    new = scene.source()
    assert len(new) > len(old)
    volume_in_place(scene, copy)
    assert scene.source() == old
    return old, new, status["generation"]


def test_start_table__12_an_old_volume_is_refused(scene, archive):
    _, new, generation = old_volume(scene, archive)
    server = scene.server(archive).start()
    status = waits(scene, server, archive, f"HARVEY_ON_STALE=fork:{generation}")
    assert status["reason"].count(generation) >= 1 and "/" in status["reason"]
    server.stop_clean()
    assert scene.restored_rows(archive) == new


def test_start_table__12_cure_restore(scene, archive):
    old, new, _ = old_volume(scene, archive)
    server = scene.server(archive, ON_STALE="restore").start_ready()
    assert server.status()["rows"] == len(new)
    aside = [path for path in scene.volume.rglob("*") if path.is_file() and path != scene.database
             and path.read_bytes()[:16] == b"SQLite format 3\x00"]
    assert aside, f"the old database was to be moved aside: {sorted(scene.volume.rglob('*'))}"
    goes_on(scene, server, archive, new, "HARVEY_ON_STALE=restore")
    assert old == new[:len(old)]


def test_start_table__12_cure_fork(scene, archive):
    old, new, generation = old_volume(scene, archive)
    server = scene.server(archive, ON_STALE=f"fork:{generation}").start_ready()
    assert server.status()["rows"] == len(old)
    status = goes_on(scene, server, archive, old, "HARVEY_ON_STALE=fork")
    assert generation in birth(archive, status["generation"])
    # the overridden rows are still there, by name
    result = scene.restore_aside(archive, "--to-latest", "--generation", generation).expect(0)
    assert oracle.read_rows(result.target) == new


def test_start_table__12_a_generation_not_of_ours(scene):
    """Another machine restored and went on (a new generation): the first one is refused."""
    archive = scene.archive("dir")
    lived(scene, archive)
    elsewhere = scene.path("elsewhere")
    elsewhere.mkdir()
    run_restore(archive, elsewhere / "state.db").expect(0)
    other = scene.server(archive, database=elsewhere / "state.db").start_ready()
    scene.rows(other, 20)
    other.wait_snapshot()
    generation = other.wait_archived()["generation"]
    server = scene.server(archive).start()
    waits_beside(server, generation)
    scene.rows(other, 20)
    assert other.wait_archived()["generation"] == generation
    other.stop_clean()


def waits_beside(server, generation):
    server.wait_not_ready(f"HARVEY_ON_STALE=fork:{generation}")
    refuses_writes(server)
    server.stop_clean()


def test_start_table__12_after_an_outage_somebody_else_had_gone_on(scene):
    """Cut off from its store, while a second machine restored and went on there. When the store is
    back the first must not go on shipping as if nothing were: it stops, red, and says so."""
    minio = scene.minio()
    archive = BucketArchive(minio)
    proxy = scene.proxy(minio.port.number)
    archive.endpoint_port = proxy.port
    server = scene.server(archive, name="cut-off").start_ready()
    scene.rows(server, 30)
    server.wait_snapshot()
    server.wait_archived()
    proxy.refuse = True
    scene.rows(server, 10)
    server.wait_status(lambda s: s["store"]["state"] == "down", "the outage")
    direct = BucketArchive(minio, archive.bucket, archive.prefix)
    elsewhere = scene.path("elsewhere")
    elsewhere.mkdir()
    run_restore(direct, elsewhere / "state.db").expect(0)
    other = scene.server(direct, database=elsewhere / "state.db", name="other").start_ready()
    ledger = scene.rows(other, 20)
    other.wait_snapshot()
    generation = other.wait_archived()["generation"]
    proxy.refuse = False
    server.wait_not_ready(generation)
    other.stop_clean()
    rows = scene.restored_rows(direct)
    assert oracle.compare(rows, None, ledger, time.monotonic()).lost == 0
    server.stop()


# ---- row 13 ----
@pytest.mark.parametrize("cure", ["fork", "restore"])
def test_start_table__13_a_copied_volume(scene, archive, cure):
    """The same bytes under other inodes (a copied volume may be somebody's second machine)."""
    _, status = lived(scene, archive)
    rows = scene.source()
    copy = scene.copy_volume()
    shutil.rmtree(scene.volume)
    copy.rename(scene.volume)
    generation = status["generation"]
    server = scene.server(archive).start()
    waits(scene, server, archive, f"HARVEY_ON_STALE=fork:{generation}")
    server.stop_clean()
    setting = "restore" if cure == "restore" else f"fork:{generation}"
    server = scene.server(archive, ON_STALE=setting).start_ready()
    goes_on(scene, server, archive, rows, setting)


def test_start_table__13_the_file_was_replaced_while_down(scene):
    archive = scene.archive("dir")
    _, status = lived(scene, archive)
    other = scene.path("other")
    sqlite3(other, "PRAGMA journal_mode=WAL;",
            "CREATE TABLE test(id INTEGER PRIMARY KEY, value INT);")
    for suffix in ("-wal", "-shm"):
        Path(f"{scene.database}{suffix}").unlink(missing_ok=True)
    os.replace(other, scene.database)
    server = scene.server(archive).start()
    waits(scene, server, archive, status["generation"])


# ---- row 14 ----
def test_start_table__14_the_store_lost_its_last_objects(scene, archive):
    _, status = lived(scene, archive)
    rows = scene.source()
    segments = archive.segments()
    for match in segments[len(segments) // 2:]:
        archive.delete(match.string)
    server = scene.server(archive).start_ready()
    later = goes_on(scene, server, archive, rows, "the store lost objects")
    assert later["generation"] != status["generation"]
    assert "store_lost" in birth(archive, later["generation"])


def test_start_table__14_the_bucket_was_made_anew(scene, archive):
    _, status = lived(scene, archive)
    rows = scene.source()
    archive.empty()
    server = scene.server(archive).start_ready()
    later = goes_on(scene, server, archive, rows, "an emptied archive")
    assert later["generation"] != status["generation"]


def test_start_table__14_emptied_while_the_server_runs(scene):
    """The bucket is emptied under the running server, then an outage makes it look again: what it
    has is archived anew, nothing is lost."""
    minio = scene.minio()
    archive = BucketArchive(minio)
    server = scene.server(archive).start_ready()
    ledger = scene.rows(server, 30)
    server.wait_snapshot()
    server.wait_archived()
    archive.empty()
    minio.stop()
    scene.rows(server, 10, ledger)
    server.wait_status(lambda s: s["store"]["state"] == "down", "the outage")
    minio.start_ready()
    server.wait_status(lambda s: s["store"]["state"] == "ok", "the store again")
    scene.rows(server, 10, ledger)

    def all_there():
        server.wait_archived()
        result = scene.restore_aside(archive)
        return result.code == 0 and len(oracle.read_rows(result.target)) == len(ledger.acks)
    until(all_there, "everything archived anew")
    server.stop_clean()


@pytest.mark.parametrize("idle", [False, True], ids=["under load", "idle"])
def test_start_table__14_emptied_without_an_outage(scene, archive, idle):
    """The same without an outage: somebody deletes everything, and no call ever fails. The next look shows
    it, while rows come or at the first one after a rest: its own birth is the last thing that must be
    there."""
    server = scene.server(archive, SHIP_INTERVAL_MS=0).start_ready()
    ledger = scene.rows(server, 30)
    server.wait_snapshot()
    first = server.wait_archived()["generation"]
    if idle:
        time.sleep(5.5)  # a look is due with the next row
    archive.empty()
    scene.rows(server, 1, ledger)

    def begun():
        if not idle:
            scene.rows(server, 1, ledger)
        return server.status()["generation"] not in (None, first)
    until(begun, "a new generation")
    server.wait_snapshot()
    status = server.wait_archived()
    assert "lost" in birth(archive, status["generation"]) and first in birth(archive, status["generation"])
    restored = scene.restored_rows(archive)
    assert oracle.compare(restored, None, ledger, time.monotonic(), "anew").lost == 0
    server.stop_clean()
    assert scene.source() == restored


# ---- row 15 ----
@pytest.mark.parametrize("stop", ["stop", "kill"])
def test_start_table__15_continues(scene, archive, stop):
    _, status = lived(scene, archive, stop=stop)
    rows = scene.source()
    server = scene.server(archive).start_ready()
    later = goes_on(scene, server, archive, rows, "continued")
    assert later["generation"] == status["generation"]
    assert len(archive.complete_snapshots()) == 1


@pytest.mark.parametrize("harm", ["lost", "emptied", "torn"])
def test_start_table__15_the_spool_was_lost_or_torn(scene, harm):
    """As a power cut leaves it: the -wal still holds everything, so it is captured again."""
    archive = scene.archive("dir")
    server = scene.server(archive).start_ready()
    ledger = scene.rows(server, 30)
    server.wait_snapshot()
    generation = server.wait_archived()["generation"]
    archive.break_off()
    scene.rows(server, 40, ledger)
    until(lambda: len(spool_files(scene)) >= 2, "a spool")
    server.kill()
    files = spool_files(scene)
    for path in files[len(files) // 2:]:
        if harm == "lost":
            path.unlink()
        else:
            os.truncate(path, 0 if harm == "emptied" else path.stat().st_size // 2)
    archive.mend()
    rows = scene.source()
    server = scene.server(archive).start_ready()
    later = goes_on(scene, server, archive, rows, f"spool {harm}", ledger)
    assert later["generation"] == generation


def test_start_table__15_state_torn(scene):
    """The state file is garbage: a hint that proves nothing. Nothing is lost, nothing forked
    silently: it refuses or begins a generation, and the cure works."""
    archive = scene.archive("dir")
    _, status = lived(scene, archive)
    rows = scene.source()
    state = sidecar(scene, "state")
    state.write_bytes(scene.random.randbytes(state.stat().st_size))
    server = scene.server(archive).start()
    settled = server.wait_status(lambda s: s["role"] != "starting", "a decision")
    if not settled["ready"]:
        server.wait_not_ready(f"HARVEY_ON_STALE=fork:{status['generation']}")
        server.stop_clean()
        server = scene.server(archive, ON_STALE=f"fork:{status['generation']}").start_ready()
    goes_on(scene, server, archive, rows, "state torn")


def spoil_marker(scene, how):
    """restored.json becomes something that no restore of ours wrote."""
    marker = sidecar(scene, "restored.json")
    text = marker.read_bytes() if marker.exists() else b"{}"
    marker.unlink(missing_ok=True)
    if how == "padded":
        marker.write_bytes(text + b" " * (70 << 10))
    elif how == "huge":
        marker.write_bytes(text)
        os.truncate(marker, 1 << 40)  # a sparse one
    elif how == "a folder":
        marker.mkdir()
    else:
        os.mkfifo(marker)
    return marker


@pytest.mark.parametrize("how", ["padded", "huge", "a folder", "a pipe"])
def test_start_table__15_a_marker_that_is_none(scene, how):
    """The state proves the database: what else lies under the marker's name does not stop the start."""
    archive = scene.archive("dir")
    _, status = lived(scene, archive)
    rows = scene.source()
    spoil_marker(scene, how)
    server = scene.server(archive).start_ready()
    assert "restored.json" in server.log()
    later = goes_on(scene, server, archive, rows, how)
    assert later["generation"] == status["generation"]


@pytest.mark.parametrize("how", ["padded", "huge", "a folder", "a pipe"])
def test_start_table__10_a_marker_that_is_none(scene, how):
    """Restored, and the marker was spoilt: nothing ties the file to the archive, and the server says
    what is wrong and how to go on."""
    archive = scene.archive("dir")
    _, status = lived(scene, archive)
    scene.wipe()
    scene.restore(archive).expect(0)
    rows = scene.source()
    spoil_marker(scene, how)
    server = scene.server(archive).start()
    server.wait_not_ready("restored.json", f"HARVEY_ON_STALE=fork:{status['generation']}")
    server.stop_clean()
    server = scene.server(archive, ON_STALE=f"fork:{status['generation']}").start_ready()
    goes_on(scene, server, archive, rows, how)


# ---- rows 16 and 17: maintenance while we were down ----
def test_start_table__16_the_file_was_touched(scene, archive):
    _, status = lived(scene, archive, stop="kill")
    rows = scene.source()
    os.utime(scene.database)
    server = scene.server(archive).start_ready()
    later = goes_on(scene, server, archive, rows, "touched")
    assert later["generation"] != status["generation"]
    assert status["generation"] in birth(archive, later["generation"])


def test_start_table__16_a_wal_beside_a_database_it_does_not_belong_to(scene):
    """The -wal goes on where we left it, but the pages under it were written over."""
    archive = scene.archive("dir")
    sqlite3(scene.database, "CREATE TABLE bulk(x);", "INSERT INTO bulk WITH RECURSIVE n(i) AS "
            "(SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < 40) SELECT randomblob(3000) FROM n;")
    _, status = lived(scene, archive, stop="kill")
    data = bytearray(scene.database.read_bytes())
    assert len(data) > 40 * 4096
    data[5 * 4096:] = scene.random.randbytes(len(data) - 5 * 4096)
    garbage = scene.path("garbage")
    garbage.write_bytes(data)
    write_in_place(scene.database, garbage)
    server = scene.server(archive).start()
    settled = server.wait_status(lambda s: s["role"] != "starting", "a decision")
    assert not settled["ready"], "serves a database with garbage pages"
    waits(scene, server, archive, status["generation"])


MAINTENANCE = {
    "checkpoint": ["PRAGMA wal_checkpoint(TRUNCATE);"],
    "write": ["INSERT INTO test(value) VALUES('while down');"],
    "vacuum": ["VACUUM;"],
    "journal_mode": ["PRAGMA journal_mode=DELETE;"],
    "passive checkpoint": ["PRAGMA wal_checkpoint(PASSIVE);"],
    "journal_mode and write": ["PRAGMA journal_mode=DELETE;",
                               "INSERT INTO test(value) VALUES('while down');"],
}


@pytest.mark.parametrize("stop", ["stop", "kill"])
@pytest.mark.parametrize("name", MAINTENANCE)
def test_start_table__17_maintenance_while_down(scene, name, stop):
    """A sqlite3 program works on the database while we are down. It goes on by itself with every
    row, the foreign ones too; a generation that begins has the old one as its parent."""
    archive = scene.archive("dir")
    _, status = lived(scene, archive, stop=stop)
    sqlite3(scene.database, *MAINTENANCE[name])
    rows = scene.source()
    server = scene.server(archive).start_ready()
    later = goes_on(scene, server, archive, rows, name)
    if later["generation"] != status["generation"]:
        assert status["generation"] in birth(archive, later["generation"])
    else:
        assert name == "passive checkpoint", "a generation went on that it cannot prove"


def test_start_table__17_the_wal_was_deleted(scene, archive):
    """Somebody deleted the -wal with rows in it that were already archived: to go on with the rest
    as "latest" would lose confirmed rows without a word."""
    _, status = lived(scene, archive, stop="kill")
    rows = scene.source()
    for suffix in ("-wal", "-shm"):
        Path(f"{scene.database}{suffix}").unlink(missing_ok=True)
    left = scene.source()
    assert len(left) < len(rows), "the -wal was to hold rows"
    server = scene.server(archive).start()
    settled = server.wait_status(lambda s: s["role"] != "starting", "a decision")
    assert not settled["ready"], f"serves {settled['rows']} of {len(rows)} rows: {settled}"
    waits(scene, server, archive, f"HARVEY_ON_STALE=fork:{status['generation']}")
    server.stop_clean()
    server = scene.server(archive, ON_STALE="restore").start_ready()
    goes_on(scene, server, archive, rows, "the -wal was deleted")


# ---- a server that waits holds nothing ----
def test_start_table__a_waiting_server_is_not_in_the_way(scene):
    """Two servers wait on an empty volume under a full archive; the restore goes through, and both
    go on by themselves: one leads, one follows."""
    archive = scene.archive("dir")
    lived(scene, archive)
    rows = scene.source()
    scene.wipe()
    servers = [scene.server(archive, name=f"waiting-{name}").start() for name in "ab"]
    for server in servers:
        server.wait_not_ready("restore")
    holds_for(lambda: not scene.database.exists(), 0.5, "a database appeared while waiting")
    scene.restore(archive).expect(0)
    for server in servers:
        server.wait_ready()

    def one_leads():
        found = [server.status()["role"] for server in servers]
        return found if sorted(found) == ["follower", "leader"] else None
    roles = until(one_leads, "one leader and one follower")
    leader, follower = (servers if roles[0] == "leader" else servers[::-1])
    ledger = Ledger()
    load = scene.load([leader, follower], ledger, clients=4).start()
    load.wait_acks(40)
    load.stop()
    leader.wait_archived()
    restored = scene.restored_rows(archive)
    assert restored[:len(rows)] == rows
    assert oracle.compare(restored, None, ledger, time.monotonic()).lost == 0
    follower.stop_clean()
    leader.stop_clean()


def test_start_table__restore_refuses_a_live_server(scene):
    archive = scene.archive("dir")
    server = scene.server(archive).start_ready()
    scene.rows(server, 10)
    server.wait_snapshot()
    server.wait_archived()
    scene.restore(archive).expect(5)
    scene.restore(archive, "--to-latest", "--replace").expect(5)
    server.check_alive()
    scene.rows(server, 5)
    server.stop_clean()
    scene.restore(archive).expect(5)  # it exists
    result = scene.restore(archive, "--to-latest", "--replace").expect(0)
    assert str(scene.volume) in result.text, "says where the old files went"


def test_start_table__a_waiting_server_is_never_in_the_restores_way(scene):
    """It takes leader.lock for a moment at each of its looks: the restore must not take that for a
    live server. Three servers that wait make it likely to meet one."""
    archive = scene.archive("dir")
    server = scene.server(archive).start_ready()
    scene.rows(server, 30)
    rows = server.status()["rows"]
    server.stop_clean()
    for _ in range(5):
        scene.wipe()
        waiting = [scene.server(archive, name=f"waiting-{i}").start() for i in range(3)]
        for server in waiting:
            server.wait_not_ready("restore")
        scene.restore(archive).expect(0)
        waiting[0].wait_ready()
        assert waiting[0].status()["rows"] == rows
        for server in waiting:
            server.stop()


def test_start_table__restored_with_replace_under_a_waiting_server(scene):
    """The folder beside the database is moved aside under it: what it notes from then on must be in
    the new one, or the start after that asks for proof again."""
    archive = scene.archive("dir")
    server = scene.server(archive).start_ready()
    scene.rows(server, 20)
    server.wait_snapshot()
    server.stop_clean()
    old = scene.copy_volume()
    server = scene.server(archive).start_ready()
    scene.rows(server, 20)
    rows = server.status()["rows"]
    server.stop_clean()
    scene.wipe()
    shutil.copytree(old, scene.volume, dirs_exist_ok=True)
    waiting = scene.server(archive).start()
    waiting.wait_not_ready("HARVEY_ON_STALE")
    scene.restore(archive, "--to-latest", "--replace").expect(0)
    waiting.wait_ready()
    assert waiting.status()["rows"] == rows
    generation = waiting.wait_archived()["generation"]
    waiting.stop_clean()
    again = scene.server(archive).start_ready()
    assert again.status()["generation"] == generation, "it continues"
    assert again.status()["rows"] == rows
    again.stop_clean()
