# SPDX-License-Identifier: Apache-2.0
"""Goal: what libs3's defects (D1-D13, archive/s3_guard.c) would cost a server and a restore, and that
the guard keeps it from them. test_store_faults.py shows every row at the calls; here are those that
lose or hide rows.

Method: the real programs with test hooks on a scripted store. Each story runs twice: as built, where
all must be well, and with HARVEY_TEST_S3_GUARD_OFF, where the row's damage must appear.
"""

import pytest

from harness import env, oracle
from harness.archive import SEGMENT
from harness.restoring import run_restore
from harness.scripted import ScriptedArchive, faults

LARGE = 10**6  # as often as it is asked


class Bed:
    """Server and restore with test hooks, guarded or not, on a store of their own."""

    def __init__(self, scene, guarded):
        self.scene = scene
        self.archive = scene.also_end(ScriptedArchive())
        self.s3 = self.archive.s3
        self.switch = {} if guarded else {"TEST_S3_GUARD_OFF": "1"}
        self.binary = {name: env.hooks_program(name) for name in ("server", "restore")}

    def server(self, **settings):
        return self.scene.server(self.archive, binary=self.binary["server"], **self.switch,
                                 **settings)

    def restore(self, *options):
        folder = self.scene.path("restored")
        folder.mkdir()
        return run_restore(self.archive, folder / "r.db", *(options or ("--to-latest",)),
                           binary=self.binary["restore"], **self.switch)

    def filled(self, rows=12):
        """A server's archive of that many rows in many objects, the server stopped."""
        server = self.server(SHIP_INTERVAL_MS=0).start_ready()
        server.wait_snapshot()
        for number in range(rows):
            server.insert(f"row {number}")
            server.wait_archived()
        server.stop_clean()
        return rows


@pytest.fixture(params=["guarded", "bare"])
def bed(request, scene):
    return Bed(scene, request.param == "guarded")


def rows_of(result):
    return len(oracle.read_rows(result.expect(0).target))


def story_of_a_put(bed, fault):
    """Two rows, the object of the second meets the fault, and more follow. Then all is archived, as
    the status says; the disk dies. Gives the restore and the rows that it should have."""
    server = bed.server().start_ready()
    server.wait_snapshot()
    server.insert("kept")
    server.wait_archived()
    bed.s3.on("PUT", fault, key=r"\.wal\.zst$")
    server.insert("in the object that meets the fault")
    server.wait_archived()
    assert bed.s3.played() == 1
    server.kill()
    return bed.restore(), 2


def test_guard__d1_a_refused_put_is_no_success(bed):
    result, rows = story_of_a_put(bed, faults.status(500))
    if not bed.switch:
        assert rows_of(result) == rows
    else:  # archived, said the status
        assert rows_of(result) < rows


def test_guard__d8_other_bytes_than_were_sent(bed):
    """Bare: archived, said the status, and the restore cannot have it. Guarded: it is put again."""
    server = bed.server().start_ready()
    server.wait_snapshot()
    bed.s3.on("PUT", faults.stored_otherwise(b"something else"), key=r"\.wal\.zst$")
    server.insert("in the object that is stored otherwise")
    if bed.switch:
        server.wait_archived()
        server.kill()
        bed.restore().expect(4)
        return
    server.wait_archived()
    server.kill()
    assert rows_of(bed.restore()) == 1


def test_guard__d2_a_store_that_does_not_say_continue(bed):
    """Bare: every large PUT fails although the store has it, for ever."""
    server = bed.server().start_ready()
    server.wait_snapshot()
    server.wait_archived()
    bed.s3.on("PUT", faults.late(0.1, says_continue=False), times=LARGE, key=r"\.wal\.zst$")
    server.insert("large enough")
    if bed.switch:
        server.wait_status(lambda s: s["store"]["state"] == "down", "the failure to show")
        assert "ConnectionFailed" in server.status()["store"]["error"], server.status()
        assert [key for key in bed.archive.keys() if SEGMENT.match(key)], "and yet it is stored"
    else:
        server.wait_archived()
    server.kill()


@pytest.mark.parametrize("fault", ["cut", "chunked"])
def test_guard__d3_a_cut_download_is_asked_for_again(bed, fault):
    """Bare: a healthy archive is called damaged as soon as a connection breaks twice."""
    rows = bed.filled()
    key = [key for key in bed.archive.keys() if SEGMENT.match(key)][rows // 2]
    bed.s3.on("GET", faults.cut(100, chunked=fault == "chunked"), times=2, key=key)
    result = bed.restore()
    assert bed.s3.played() == 2
    if not bed.switch:
        assert rows_of(result) == rows
    else:
        result.expect(4)


@pytest.mark.parametrize("length", [True, "own"])
def test_guard__d4_a_cut_listing_hides_no_rows(bed, length):
    """Bare: exit 0, not a word, and rows are missing. The worst of them all."""
    rows = bed.filled()
    bed.s3.on("LIST", faults.cut(1500, length=length), key="/wal/")
    result = bed.restore()
    assert bed.s3.played() == 1
    if not bed.switch:
        assert rows_of(result) == rows
    else:
        assert rows_of(result) < rows and "left out" not in result.text


def test_guard__d13_a_redirect_gives_nobody_our_objects(bed):
    """Bare: the restore takes what some other host sends."""
    rows = bed.filled(5)
    elsewhere = bed.scene.also_end(ScriptedArchive())
    elsewhere.objects.update(bed.archive.objects)
    elsewhere.s3.is_public = True
    key = next(key for key in bed.archive.keys() if SEGMENT.match(key))
    bed.s3.on("GET", faults.status(307, headers={
        "Location": f"{elsewhere.s3.endpoint}/bucket/demo/{key}"}), key=key)
    result = bed.restore()
    if not bed.switch:
        assert result.code == 2 and elsewhere.s3.endpoint in result.stderr, result.describe()
        assert not elsewhere.s3.requests and not result.left_behind()
        assert rows_of(bed.restore()) == rows
    else:
        assert rows_of(result) == rows and elsewhere.s3.count("GET") == 1
